"""Neurons: heat maps, settings, and that training is not affected."""

import numpy as np
import pytest
import torch
from helpers import TEXT, fit, same

import charrnn
from charrnn.callbacks import neurons
from charrnn.callbacks.neurons import (
    FOOT,
    HIGH,
    LOW,
    MARGIN,
    TALL,
    WIDE,
    WIDTH,
    Neurons,
    heat_map,
)


def train(folder, *callbacks):
    """Train a few windows with dropout; return weights, carry and random state."""
    torch.manual_seed(0)
    charset = charrnn.Charset(TEXT)
    model = charrnn.GRUEncode(len(charset), 8, 2, dropout=0.5, backend="torch")
    folder.mkdir()
    task, _ = fit(
        folder, TEXT, model, {"description": {"charset": charset.state_dict()}},
        {"batch_size": 3, "seq_len": 7}, max_steps=12, callbacks=list(callbacks),
    )  # fmt: skip
    return model.state_dict(), task.carry, torch.get_rng_state()


def test_training_is_not_affected(tmp_path, monkeypatch):
    writes = []
    monkeypatch.setattr(neurons, "to_loggers", lambda trainer, write: writes.append(write))
    expected = train(tmp_path / "without")
    assert not writes
    assert same(train(tmp_path / "with", Neurons(every_n_steps=5)), expected)
    assert len(writes) == 2 * 4  # numbers and pictures, at 0, 5, 10 and 12


def test_units_out_of_range(tmp_path):
    with pytest.raises(charrnn.InputError, match=r"callbacks.neurons.units=\[2, 8\] must be"):
        train(tmp_path / "run", Neurons(units=[2, 8]))


def test_heat_map_has_a_cell_for_each_unit_and_character():
    picture = heat_map(np.array([[-1, 0, 1], [0.5, -0.5, 0]]), [3, 7], ["a", "\n", "\\x1b"])
    assert picture.shape == (2 * TALL + FOOT, MARGIN + 3 * WIDE, 3)
    cells = picture[TALL // 2 : 2 * TALL : TALL, MARGIN + WIDE // 2 :: WIDE].astype(int)
    white = np.full(3, 255)
    expected = [[LOW, white, HIGH], [(white + HIGH) / 2, (white + LOW) / 2, white]]
    np.testing.assert_allclose(cells, expected, atol=1)


def test_long_texts_are_drawn_in_bands():
    values = np.linspace(-1, 1, 2 * (WIDTH + 3)).reshape(2, -1)
    picture = heat_map(values, [3, 7], ["a"] * (WIDTH + 3))
    assert picture.shape == (2 * (2 * TALL + FOOT), MARGIN + WIDTH * WIDE, 3)
    first, second = heat_map(values[:, :WIDTH], [3, 7], ["a"] * WIDTH), picture[2 * TALL + FOOT :]
    np.testing.assert_array_equal(picture[: 2 * TALL + FOOT], first)
    cells = second[TALL // 2, MARGIN + WIDE // 2 :: WIDE]
    assert (cells[:3] != 255).any(1).all() and (cells[3:] == 255).all()


@pytest.mark.parametrize(("settings", "message"), [
    ({"every_n_steps": 0}, "every_n_steps=0"), ({"text": ""}, "text="), ({"length": 0}, "length=0"),
    ({"units": 0}, "units=0"), ({"units": []}, "units="), ({"units": [3, -1]}, "units="),
])  # fmt: skip
def test_arguments_out_of_range(settings, message):
    with pytest.raises(charrnn.InputError, match=message):
        Neurons(**settings)
