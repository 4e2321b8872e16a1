"""Divergence: a run that spiked or lost its numbers stops, or goes back and on at a lower rate."""

import pytest
import torch
from helpers import TEXT, TINY, fit, load, metrics
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from charrnn import Charset, GRUEncode, InputError
from charrnn.errors import Diverged

RUN = (
    *TINY, "model.dropout=0.2", "trainer.max_epochs=3", "trainer.limit_train_batches=20",
    "callbacks.checkpoint.every_n_steps=6", "callbacks.samples=null",
    "trainer.log_every_n_steps=1", "allow_targets=[mine]",
)  # fmt: skip

# A model that diverges once its weights have seen windows at too high a rate: not by chance.
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
def test_a_rollback_is_a_run_taken_up_at_a_lower_rate(command, tmp_path, scheduler):
    """Window 31 diverges each time it comes: two rollbacks to window 24, then the end.

    The checkpoint of window 30 would diverge at once, whatever the rate, and is no good one.
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
    # As a run that never diverged, and whose rate was lowered after window 24.
    quiet = run_with(
        command, tmp_path, TEXT[:3000], "nan", "{}", f"scheduler={scheduler}",
        "optimizer.lr=0.01", run="quiet",
    )  # fmt: skip
    assert quiet.code == 0, quiet.err
    there = [float(r["train/lr"]) for r in metrics(tmp_path / "quiet") if r["train/lr"]]
    here = [float(r["train/lr"]) for r in metrics(run) if r["train/lr"]]
    assert here == pytest.approx(there[:24] + [rate / 4 for rate in there[24:30]])
    losses = [
        [r["train/loss"] for r in metrics(r) if r["train/loss"]] for r in (run, tmp_path / "quiet")
    ]
    # Bit for bit up to the first window that was trained at another rate.
    assert losses[0][:25] == losses[1][:25] and losses[0][25:] != losses[1][25:30]


def test_a_spike_is_rolled_back_and_the_rate_stays_low(command, tmp_path):
    """Three times it spikes, as long as there is no file, and once there is one it does not."""
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
    # Whoever takes the run up has its rate and its count.
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


def test_stop_is_the_default_and_a_first_window_has_nothing_before_it(command, tmp_path):
    for windows, more in (("{31}", ()), ("{1}", ("task.on_divergence=rollback",))):
        result = run_with(command, tmp_path, TEXT[:3000], "inf", windows, *more, run=windows[1:-1])
        assert result.code == 2 and "rollback" not in result.out + result.err
        assert "the loss is inf at window" in result.err and "optimizer.lr" in result.err


class Spiking(GRUEncode):
    factor, windows = 1.0, 0

    def loss(self, *arguments):
        self.windows += 1
        loss, state = super().loss(*arguments)
        return loss * (self.factor if self.windows == 9 else 1.0), state


@pytest.mark.parametrize(("factor", "spikes"), [(1.9, False), (2.5, True)])
def test_spikes_are_measured_by_the_running_mean(tmp_path, factor, spikes):
    torch.manual_seed(0)
    model = Spiking(len(Charset.from_text(TEXT[:500])), 5, 1)
    model.factor = factor
    settings = {"task": {"spike_factor": 2.0}, "data": {"batch_size": 3, "seq_len": 7}}
    if not spikes:
        task, _ = fit(tmp_path, TEXT[:500], model, max_steps=12, **settings)
        assert 1 < task.monitor.mean_loss.item() < 6
        return
    with pytest.raises(Diverged, match=r"2\.\d+ times its running mean at window 9:") as caught:
        fit(tmp_path, TEXT[:500], model, max_steps=12, **settings)
    assert caught.value.good == 7


@pytest.mark.parametrize(
    "bad",
    [{"on_divergence": "go"}, {"spike_factor": 1.0}, {"rollback_factor": 0}, {"max_rollbacks": -1}],
    ids=str,
)
def test_bad_settings(tmp_path, bad):
    with pytest.raises(InputError, match=f"^{next(iter(bad))}="):
        fit(tmp_path, TEXT[:500], GRUEncode(5, 5, 1), task=bad)
