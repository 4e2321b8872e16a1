"""A setting that is changed where a run goes on: it has an effect, or a line says why not."""

import pytest
from helpers import load, same, state
from runs_in_process import WINDOWS, settings, trained

from charrnn import InputError


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return settings(tmp_path_factory.mktemp("resumed"))


@pytest.fixture(scope="module")
def half(config, tmp_path_factory):
    """The checkpoint of one of two rounds."""
    folder = tmp_path_factory.mktemp("half") / "run"
    trained(config, folder)
    return folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def unchanged(config, half, tmp_path_factory):
    return weights(config, half, tmp_path_factory.mktemp("unchanged") / "run", {})


def weights(config, half, folder, changes):
    """Those after the second round, in another folder."""
    run = trained(config, folder, {"resume": str(half), "trainer.max_epochs": 2} | changes)
    assert run.task.global_step == 2 * WINDOWS
    return state(folder)["weights"]


@pytest.mark.parametrize(
    ("key", "value"), [("eps", 0.1), ("weight_decay", 0.5), ("alpha", 0.5), ("maximize", True)]
)
def test_of_the_optimizer(config, half, unchanged, tmp_path, key, value):
    """Whether or not the run was begun with the key."""
    found = weights(config, half, tmp_path / "run", {f"optimizer.{key}": value})
    (group,) = load(tmp_path / "run/checkpoints/last.ckpt")["optimizer_states"][0]["param_groups"]
    assert group[key] == value and not same(found, unchanged)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"optimizer.momentum": 0.9}, "momentum=0.9: needs momentum_buffer, which the run that is"),
        ({"optimizer.centered": True}, "optimizer.centered=True: needs grad_avg"),
        ({"trainer.overfit_batches": 2}, "trainer.overfit_batches=2: cannot be changed"),
    ],
)
def test_that_cannot_change(config, half, tmp_path, changes, line):
    with pytest.raises(InputError, match=line):
        weights(config, half, tmp_path / "run", changes)
    assert not (tmp_path / "run").exists()
