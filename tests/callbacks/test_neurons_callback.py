"""The neurons of a run in TensorBoard: what stands there, and that the run is none the wiser."""

import io

import numpy as np
import pytest
import torch
from helpers import TEXT, TINY, fit, same
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import charrnn
from charrnn.callbacks import neurons
from charrnn.callbacks.neurons import CELL, FOOT, HIGH, LOW, MARGIN, Neurons, heat_map


def train(folder, *callbacks):
    """A few windows with dropout; what they leave, random state included."""
    torch.manual_seed(0)
    charset = charrnn.Charset(TEXT)
    model = charrnn.GRUEncode(len(charset), 8, 2, dropout=0.5)
    folder.mkdir()
    task, _ = fit(
        folder, TEXT, model, {"description": {"charset": charset.state_dict()}},
        {"batch_size": 3, "seq_len": 7}, max_steps=12, callbacks=list(callbacks),
    )  # fmt: skip
    return model.state_dict(), task.carry, torch.get_rng_state()


def test_the_training_is_none_the_wiser(tmp_path, monkeypatch):
    looks = []
    monkeypatch.setattr(neurons, "to_loggers", lambda trainer, write: looks.append(write))
    wanted = train(tmp_path / "without")
    assert not looks
    assert same(train(tmp_path / "with", Neurons(every_n_steps=5)), wanted)
    assert len(looks) == 2 * 4  # numbers and pictures, at 0, 5, 10 and 12


def test_units_that_there_are_not(tmp_path):
    with pytest.raises(charrnn.InputError, match=r"callbacks.neurons.units=\[2, 8\] must be"):
        train(tmp_path / "run", Neurons(units=[2, 8]))


def test_a_run_with_neurons(command, text_file, tmp_path):
    """Pictures, histograms and shares of every look, also after a resumption."""
    run = tmp_path / "run"
    result = command(
        "train.py", f"data.path={text_file}", *TINY, "trainer.max_epochs=1",
        "trainer.limit_train_batches=20", "callbacks.samples=null", f"hydra.run.dir={run}",
        "neurons=tensorboard", "callbacks.neurons.every_n_steps=8", "callbacks.neurons.units=[5,3]",
    )  # fmt: skip
    assert result.code == 0, result.err
    text = TEXT[int(0.9 * len(TEXT)) - 1 :][:80]
    check_events(run, [0, 8, 16, 20], text)
    resumed = command("train.py", f"resume={run}", "trainer.max_epochs=2")
    assert resumed.code == 0, resumed.err
    check_events(run, [0, 8, 16, 20, 24, 32, 40], text)


def check_events(run, windows, text):
    """Pictures, histograms and shares of both layers at these windows; the last against the
    weights that are saved."""
    model = charrnn.load(run)
    activations, (reset, update) = model.activations(text), model.gates(text)
    events = EventAccumulator(str(run / "tensorboard"), {"images": 0, "histograms": 0}).Reload()
    for layer in (0, 1):
        pictures = events.Images(f"neurons/layer_{layer}")
        assert [picture.step for picture in pictures] == windows
        found = np.array(Image.open(io.BytesIO(pictures[-1].encoded_image_string)))
        wanted = heat_map(activations[layer, [5, 3]], [5, 3], list(text))
        np.testing.assert_array_equal(found, wanted)
        parts = {"activations": activations, "reset_gate": reset, "update_gate": update}
        for name, part in parts.items():
            histograms = events.Histograms(f"{name}/layer_{layer}")
            assert [histogram.step for histogram in histograms] == windows
            last = histograms[-1].histogram_value
            assert last.num == sum(last.bucket) == part[layer].size
            assert last.sum == pytest.approx(part[layer].sum(dtype=np.float64), rel=1e-4)
        for name, gate in (("reset_gate", reset), ("update_gate", update)):
            for side, share in (("below_0.1", gate[layer] < 0.1), ("above_0.9", gate[layer] > 0.9)):
                last = events.Scalars(f"saturation/{name}_{side}/layer_{layer}")[-1]
                assert (last.step, last.value) == (windows[-1], pytest.approx(share.mean()))


def test_a_heat_map_has_a_cell_for_each_unit_at_each_character():
    picture = heat_map(np.array([[-1, 0, 1], [0.5, -0.5, 0]]), [3, 7], ["a", "\n", "\\x1b"])
    assert picture.shape == (2 * CELL + FOOT, MARGIN + 3 * CELL, 3)
    cells = picture[CELL // 2 : 2 * CELL : CELL, MARGIN + CELL // 2 :: CELL].astype(int)
    white = np.full(3, 255)
    wanted = [[LOW, white, HIGH], [(white + HIGH) / 2, (white + LOW) / 2, white]]
    np.testing.assert_allclose(cells, wanted, atol=1)


@pytest.mark.parametrize(("settings", "said"), [
    ({"every_n_steps": 0}, "every_n_steps=0"), ({"text": ""}, "text="), ({"length": 0}, "length=0"),
    ({"units": 0}, "units=0"), ({"units": []}, "units="), ({"units": [3, -1]}, "units="),
])  # fmt: skip
def test_wrong_settings(settings, said):
    with pytest.raises(charrnn.InputError, match=said):
        Neurons(**settings)
