"""trainer.precision=auto: what is measured, what is not measured, and what a resumed run does."""

import pytest
import torch
from runs_in_process import settings, trained

from charrnn import GRUEncode
from charrnn.cli import trainer
from charrnn.gru import bf16
from charrnn.training import precision


@pytest.mark.parametrize(("gain", "expected"), [(0.0, "bf16-mixed"), (1e9, "32-true")])
def test_the_faster_is_chosen(gain, expected, monkeypatch):
    monkeypatch.setattr(precision, "LEAST_GAIN", gain)
    monkeypatch.setattr(precision, "SECONDS", 0.01)
    monkeypatch.setattr(bf16, "why_not", lambda: None)
    model = GRUEncode(11, 9, 2, dropout=0.3)
    before = torch.get_rng_state()
    name, why = precision.choose_precision(model, 11, rows=3, steps=7)
    assert name == expected and "times as fast as 32-true" in why
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in model.parameters())


def test_nothing_is_measured_without_the_instructions(monkeypatch):
    monkeypatch.setenv(bf16.VARIABLE, "off")
    model = GRUEncode(11, 9, 2)
    assert precision.choose_precision(model, 11, 3, 7) == ("32-true", "CHARRNN_BF16=off")


@pytest.mark.parametrize("chosen", ["bf16-mixed", "32-true"])
def test_a_resumed_run_stays_in_its_precision(chosen, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    config = settings(tmp_path)
    monkeypatch.setattr(trainer, "choose_precision", lambda *args: (chosen, "it is faster"))
    run = trained(config, folder, {"trainer.precision": "auto", "trainer.max_steps": 3})
    assert run.trainer.precision == chosen
    assert f"trainer.precision=auto: {chosen} (it is faster)" in capsys.readouterr().out
    monkeypatch.delattr(trainer, "choose_precision")
    file = folder / "checkpoints" / "last.ckpt"
    run = trained(config, folder, {"trainer.precision": "auto", "resume": str(file)})
    assert run.trainer.precision == chosen and run.trainer.global_step == 6
    assert f"trainer.precision=auto: {chosen} (as before)" in capsys.readouterr().out
