"""Rollbacks: a run that diverges stops, or goes on from an earlier checkpoint at a lower rate."""

import pytest
from helpers import TEXT, TINY, load, metrics
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

RUN = (
    *TINY, "model.dropout=0.2", "trainer.max_epochs=3", "trainer.limit_train_batches=20",
    "callbacks.checkpoint.every_n_steps=6", "callbacks.samples=null",
    "trainer.log_every_n_steps=1", "allow_targets=[mine]",
)  # fmt: skip

# A model whose loss is multiplied in chosen windows.
MINE = """
import torch
from charrnn.models import GRUEncode

class Mine(GRUEncode):
    windows = {windows}

    def loss(self, inputs, targets, state):
        loss, state = super().loss(inputs, targets, state)
        return loss * (float({value!r}) if self.trained() in self.windows else 1.0), state

    def trained(self):
        import gc
        from charrnn.training.task import CharTask
        if not hasattr(self, "tasks"):
            self.tasks = [t for t in gc.get_objects() if type(t) is CharTask and t.model is self]
        return self.tasks[0].global_step + 1
"""


def run_with(command, folder, text, value, windows, *arguments, run="run"):
    (folder / "mine.py").write_text(MINE.format(value=value, windows=windows))
    (folder / "text.txt").write_text(text, "utf-8")
    return command(
        "train.py", "data.path=text.txt", f"hydra.run.dir={folder / run}",
        "model._target_=mine.Mine", *RUN, *arguments, cwd=folder, env={"PYTHONPATH": str(folder)},
    )  # fmt: skip


def texts(run, tag):
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    return [(e.step, e.tensor_proto.string_val[0].decode()) for e in events.Tensors(tag)]


@pytest.mark.parametrize("scheduler", ["adaptive", "cosine"])
def test_rollback_resumes_at_a_lower_rate(command, tmp_path, scheduler):
    """Window 31 always diverges: two rollbacks to window 24, then the end.

    The checkpoint of window 30 would diverge at once with any rate, so it is not used.
    """
    result = run_with(
        command, tmp_path, TEXT[:3000], "nan", "{31}", "task.on_divergence=rollback",
        "task.max_rollbacks=2", f"scheduler={scheduler}", "optimizer.lr=0.01",
    )  # fmt: skip
    assert result.code == 2 and result.err.count("\n") <= 2
    assert "error: the loss is nan at window 31, after 2 rollbacks: try" in result.err
    lines = [
        f"the loss is nan at window 31: rollback {n} of 2, to window 24, with optimizer.lr={lr}"
        for n, lr in ((1, "0.005"), (2, "0.0025"))
    ]
    assert [line for line in result.out.splitlines() if "rollback" in line] == lines
    run = tmp_path / "run"
    assert texts(run, "rollback/text_summary") == [(24, f"    {line}\n") for line in lines]
    ours = load(run / "checkpoints" / "last.ckpt")
    assert (ours["charrnn"]["windows"], ours["charrnn"]["rollbacks"]) == (30, 2)
    assert ours["charrnn"]["settings"]["optimizer"]["lr"] == 0.0025
    # Like a run that never diverged and lowered its rate after window 24.
    plain = run_with(
        command, tmp_path, TEXT[:3000], "nan", "{}", f"scheduler={scheduler}",
        "optimizer.lr=0.01", run="plain",
    )  # fmt: skip
    assert plain.code == 0, plain.err
    there = [float(r["train/lr"]) for r in metrics(tmp_path / "plain") if r["train/lr"]]
    here = [float(r["train/lr"]) for r in metrics(run) if r["train/lr"]]
    assert here == pytest.approx(there[:24] + [rate / 4 for rate in there[24:30]])
    losses = [
        [r["train/loss"] for r in metrics(r) if r["train/loss"]] for r in (run, tmp_path / "plain")
    ]
    # Bit for bit up to the first window that was trained at another rate.
    assert losses[0][:25] == losses[1][:25] and losses[0][25:] != losses[1][25:30]


def test_spike_is_rolled_back_and_the_rate_stays_low(command, tmp_path):
    """Window 41 spikes until a file exists."""
    spiking = "{41} if not __import__('os').path.exists('once') else {}"
    result = run_with(
        command, tmp_path, TEXT[:3000], "3.5", spiking, "task.on_divergence=rollback",
        "task.spike_factor=3", "callbacks.checkpoint.every_n_steps=10",
    )  # fmt: skip
    assert result.code == 2
    assert "times its running mean at window 41, after 3 rollbacks" in result.err
    assert "rollback 1 of 3, to window 30" in result.out
    run = tmp_path / "run"
    (tmp_path / "once").touch()
    # The resumed run has the lower rate and the count of rollbacks.
    resumed = command(
        "train.py", f"resume={run}", "allow_targets=[mine]", cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert resumed.code == 0, resumed.err
    ours = load(run / "checkpoints" / "last.ckpt")["charrnn"]
    assert (ours["rounds"], ours["rollbacks"]) == (3, 3)
    assert ours["settings"]["optimizer"]["lr"] == 0.001 / 8
    steps = [int(row["step"]) for row in metrics(run)]
    assert steps == list(range(61))


def test_stop_is_the_default_and_first_window_cannot_roll_back(command, tmp_path):
    for windows, more in (("{31}", ()), ("{1}", ("task.on_divergence=rollback",))):
        result = run_with(command, tmp_path, TEXT[:3000], "inf", windows, *more, run=windows[1:-1])
        assert result.code == 2 and "rollback" not in result.out + result.err
        assert "the loss is inf at window" in result.err and "optimizer.lr" in result.err
