"""Whole runs on a GPU: resumed, moved to a CPU and back, in every precision, and what follows."""

import pytest
import torch
from helpers import LIBRARY, load, same

pytestmark = pytest.mark.gpu
SETTINGS = (
    "model.hidden_size=24", "model.dropout=0.2", "data.batch_size=3", "data.seq_len=7",
    "trainer.limit_train_batches=30", "callbacks.samples.every_n_steps=20",
    "callbacks.samples.length=10", "optimizer.lr=1e-2",
)  # fmt: skip


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text(LIBRARY, "utf-8")
    return file


def run(command, *arguments):
    result = command("train.py", *arguments)
    assert result.code == 0, result.err + result.out
    return result


def state(file):
    """A checkpoint without its wall-clock parts."""
    content = load(file)
    return content["state_dict"], content["optimizer_states"], content["charrnn"]["carry"]


@pytest.mark.parametrize("variant", ["", "model.reset=before", "model.backend=torch"])
def test_resumed_bit_for_bit(tmp_path, command, text_file, variant):
    extra = [variant] if variant else []
    for name, rounds in (("whole", 3), ("parts", 1)):
        where = f"hydra.run.dir={tmp_path / name}"
        said = run(
            command, f"data.path={text_file}", where, f"trainer.max_epochs={rounds}", *SETTINGS,
            "trainer.accelerator=gpu", *extra,
        ).out  # fmt: skip
        assert "not a CUDA graph" not in said
    run(command, f"resume={tmp_path / 'parts'}", "trainer.max_epochs=3")
    a, b = (state(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "parts"))
    assert same(a, b)


def test_from_a_gpu_to_a_cpu_and_back(tmp_path, command, text_file):
    where = tmp_path / "run"
    run(
        command, f"data.path={text_file}", f"hydra.run.dir={where}", "trainer.max_epochs=1",
        *SETTINGS, "trainer.accelerator=gpu",
    )  # fmt: skip
    run(command, f"resume={where}", "trainer.max_epochs=2", "trainer.accelerator=cpu")
    run(command, f"resume={where}", "trainer.max_epochs=3", "trainer.accelerator=gpu")
    losses = [
        loss for _, loss in load(where / "checkpoints" / "last.ckpt")["charrnn"]["validations"]
    ]
    assert len(losses) == 4 and losses[-1] < losses[0]


def test_every_precision_learns_alike(tmp_path, command, text_file):
    ends = {}
    for precision in ("32-true", "bf16-mixed", "16-mixed"):
        where = tmp_path / precision
        run(
            command, f"data.path={text_file}", f"hydra.run.dir={where}", *SETTINGS,
            "trainer.max_epochs=4", "trainer.accelerator=gpu", "model.backend=native",
            f"trainer.precision={precision}", "model.dropout=0",
        )  # fmt: skip
        content = load(where / "checkpoints" / "last.ckpt")
        ends[precision] = content["charrnn"]["validations"][-1][1]
    best = min(ends.values())
    assert max(ends.values()) <= 1.01 * best, ends


def test_what_is_done_with_a_model_on_a_gpu(tmp_path, command, text_file):
    import charrnn

    where = tmp_path / "run"
    run(
        command, f"data.path={text_file}", f"hydra.run.dir={where}", "trainer.max_epochs=1",
        *SETTINGS, "trainer.accelerator=gpu",
    )  # fmt: skip
    here, there = charrnn.load(where), charrnn.load(where)
    there.model.cuda()
    text = LIBRARY[:500]
    torch.testing.assert_close(
        torch.as_tensor(there.score(text)).cpu(), torch.as_tensor(here.score(text)),
        rtol=1e-2, atol=1e-2,
    )  # fmt: skip
    torch.testing.assert_close(
        torch.as_tensor(there.activations(text)).cpu(), torch.as_tensor(here.activations(text)),
        rtol=1e-2, atol=1e-2,
    )  # fmt: skip
    assert len(there.generate("def ", length=40, seed=1)) == 44
