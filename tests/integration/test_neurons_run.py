"""The neurons of a run in TensorBoard, also after it was resumed."""

import io

import numpy as np
import pytest
from helpers import TEXT, TINY
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import charrnn
from charrnn.callbacks.neurons import heat_map


def test_a_run_with_neurons(command, text_file, tmp_path):
    """Heat maps, histograms and saturation, also after resuming."""
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
    """Check both layers at these windows, and the last against the saved weights."""
    model = charrnn.load(run)
    activations, (reset, update) = model.activations(text), model.gates(text)
    events = EventAccumulator(str(run / "tensorboard"), {"images": 0, "histograms": 0}).Reload()
    for layer in (0, 1):
        pictures = events.Images(f"within/neurons/layer_{layer}")
        assert [picture.step for picture in pictures] == windows
        found = np.array(Image.open(io.BytesIO(pictures[-1].encoded_image_string)))
        expected = heat_map(activations[layer, [5, 3]], [5, 3], list(text))
        np.testing.assert_array_equal(found, expected)
        parts = {"activations": activations, "reset_gate": reset, "update_gate": update}
        for name, part in parts.items():
            histograms = events.Histograms(f"within/{name}/layer_{layer}")
            assert [histogram.step for histogram in histograms] == windows
            last = histograms[-1].histogram_value
            assert last.num == sum(last.bucket) == part[layer].size
            assert last.sum == pytest.approx(part[layer].sum(dtype=np.float64), rel=1e-4)
        for name, gate in (("reset_gate", reset), ("update_gate", update)):
            for side, share in (("below_0.1", gate[layer] < 0.1), ("above_0.9", gate[layer] > 0.9)):
                last = events.Scalars(f"within/saturation/{name}_{side}/layer_{layer}")[-1]
                assert (last.step, last.value) == (windows[-1], pytest.approx(share.mean()))
