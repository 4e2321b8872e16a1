"""charrnn.train: the command's configuration, exact resumption, an unchanged process."""

import logging
import signal
import sys
import threading
import warnings

import other_models
import pytest
import torch
from helpers import TEXT, load, metrics, same, state
from pytorch_lightning import Callback

import charrnn
from charrnn.cli import from_python

SMALL = {
    "hidden_size": 8, "batch_size": 3, "seq_len": 7, "max_epochs": 1, "limit_train_batches": 6,
    "log_every_n_steps": 2, "valid_size": 200, "logger": "none", "callbacks.samples": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return charrnn.train(text=TEXT, folder=tmp_path_factory.mktemp("run") / "run", **SMALL)


def test_run(run):
    assert repr(run).startswith(f"TrainingRun('{run.folder}', window 6, best validation ")
    assert [row["window"] for row in run.validations] == [0, 6]
    assert run.validations[1]["characters"] == 6 * 3 * 7
    assert run.validations[1]["bpc"] == pytest.approx(float(metrics(run.folder)[-1]["val/bpc"]))
    assert len(run.model.generate("def ", length=10, seed=1)) == 14
    assert (run.folder / ".hydra" / "config.yaml").exists() and not run.is_interrupted


def test_pandas_reads_the_validations(run):
    import pandas

    table = pandas.DataFrame(run.validations)
    assert list(table.columns) == ["window", "characters", "loss", "bpc"] and len(table) == 2


def test_plot(run, monkeypatch):
    import matplotlib

    matplotlib.use("Agg")
    (axes,) = run.plot().axes
    assert run.report() == run.folder / "report.html" and run.report().is_file()
    assert [line.get_label() for line in axes.lines] == ["train", "val"]
    assert [len(line.get_xdata()) for line in axes.lines] == [3, 2]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(charrnn.InputError, match="pip install matplotlib"):
        run.plot()


def test_it_is_the_command(run, command, tmp_path):
    """The same settings on the command line give the same run, to the last bit."""
    keys = {
        "hidden_size": "model.",
        "batch_size": "data.",
        "seq_len": "data.",
        "valid_size": "data.",
    }
    keys |= dict.fromkeys(("max_epochs", "limit_train_batches", "log_every_n_steps"), "trainer.")
    settings = [f"{keys.get(k, '')}{k}={'null' if v is None else v}" for k, v in SMALL.items()]
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    result = command("train.py", "data.path=text.txt", "hydra.run.dir=run", *settings, cwd=tmp_path)
    assert result.code == 0, result.err
    assert same(state(run.folder), state(tmp_path / "run"))


def test_own_classes(tmp_path, monkeypatch):
    """By dictionary and by key; the run has its model and goes on without allowing them again."""
    monkeypatch.setitem(sys.modules, "of_a_notebook", other_models)
    settings = {k: v for k, v in SMALL.items() if k != "hidden_size"}
    run = charrnn.train(
        text=TEXT, folder=tmp_path / "run", allow_targets=["of_a_notebook"],
        **settings | {"logger": ["csv", "none"]},
        model={"_target_": "of_a_notebook.Counter", "form": "dict"},
        optimizer={"_target_": "torch.optim.NAdam", "lr": 2e-3},
        overrides=["scheduler._target_=torch.optim.lr_scheduler.StepLR", "scheduler.step_size=2"],
    )  # fmt: skip
    assert len(run.model.generate(length=5, seed=1)) == 5 and run.model.model.form == "dict"
    assert len(run.train(max_epochs=2).model.generate(length=5)) == 5
    (optimizer,) = load(run.folder / "checkpoints/last.ckpt")["optimizer_states"]
    assert optimizer["param_groups"][0]["lr"] == pytest.approx(2e-9)
    assert metrics(run.folder / "csv/version_0")


def test_going_on_is_exact(tmp_path):
    whole = charrnn.train(text=TEXT, folder=tmp_path / "whole", **SMALL | {"max_epochs": 2})
    parts = charrnn.train(text=TEXT, folder=tmp_path / "parts", **SMALL)
    assert parts.train(max_epochs=2) is parts
    assert same(state(whole.folder), state(parts.folder))
    assert "window 12" in repr(parts.model)


class Interrupt(Callback):
    """Ctrl-C in the middle of the third window."""

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        if trainer.global_step == 2:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_saves_and_returns(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "of_a_notebook", sys.modules[__name__])
    before = signal.getsignal(signal.SIGINT)
    run = charrnn.train(
        text=TEXT, folder=tmp_path / "run", allow_targets=["of_a_notebook"],
        **SMALL | {"callbacks.stop._target_": "of_a_notebook.Interrupt"},
    )  # fmt: skip
    assert run.is_interrupted and repr(run).endswith("window 3, interrupted)")
    assert "SIGINT: saved after window" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before
    run.train(**{"callbacks.stop": None})
    assert not run.is_interrupted and run.validations[-1]["window"] == 6


def test_the_process_is_left_as_it_was(tmp_path):
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    (tmp_path / "mine.yaml").write_text("x: 1\n")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    handlers = list(logging.getLogger().handlers)
    filters, streams, hook = list(warnings.filters), (sys.stdout, sys.stderr), threading.excepthook
    with initialize_config_dir(str(tmp_path), version_base="1.2"):
        charrnn.train(text=TEXT, folder=tmp_path / "run", **SMALL)
        assert compose("mine").x == 1
    assert not GlobalHydra.instance().is_initialized()
    assert torch.equal(torch.rand(3), expected)
    assert logging.getLogger().handlers == handlers and warnings.filters == filters
    assert (sys.stdout, sys.stderr) == streams and threading.excepthook is hook


def test_in_a_thread_and_in_one_at_a_time(tmp_path):
    found = []

    def work():
        found.append(charrnn.train(text=TEXT, folder=tmp_path / "run", **SMALL))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0].validations[-1]["window"] == 6
    with from_python._training, pytest.raises(charrnn.InputError, match="another thread"):
        charrnn.train(text=TEXT, **SMALL)


def test_fast_dev_run_has_a_model(tmp_path):
    run = charrnn.train(text=TEXT, folder=tmp_path / "run", **SMALL, fast_dev_run=True)
    assert len(run.model.generate(length=5, seed=1)) == 5 and len(run.validations) == 1


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"hiden_size": 3}, "hiden_size: no such setting; did you mean model.hidden_size?"),
        ({"every_n_steps": 4}, "every_n_steps: may be callbacks.checkpoint.every_n_steps or"),
        ({"seq_len": "a"}, "data.seq_len=a must be a whole number"),
        ({"seed": 1 + 2j}, "a setting is text, a number, a list or a dictionary"),
        ({"path": "no.txt"}, "path and text are both given"),
        ({"text": b"abc"}, "text is of bytes; it must be a str"),
        ({"text": None, "path": TEXT}, "path is a text of several lines"),
        ({"overrides": ["data.bach_size=3"]}, "did you mean data.batch_size?"),
        ({"overrides": ["-m"]}, "trains one run; charrnn train -m makes sweeps"),
        ({"experiment": "shakespeare_60min"}, "this is a sweep, for charrnn train"),
        ({"devices": 2}, "trainer.devices=2: several processes are for charrnn train"),
        ({"model": "gpt"}, "model=gpt: no such option; there are gru_encode, gru_resize, lstm"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, monkeypatch, settings, line):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(charrnn.InputError) as error:
        charrnn.train(**{"text": TEXT} | settings)
    assert line in str(error.value) and "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "around",
    [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["inference", "no gradients", "autocast"],
)
def test_the_callers_modes_are_not_the_runs(run, tmp_path, around):
    with around():
        found = charrnn.train(text=TEXT, folder=tmp_path / "run", **SMALL)
        texts = found.model.generate("a", 20, seed=1), found.model.generate("a", 5, beam=2)
    assert found.validations == run.validations
    assert texts == (run.model.generate("a", 20, seed=1), run.model.generate("a", 5, beam=2))
