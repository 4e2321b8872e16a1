"""train.py from end to end: what it prints, writes and leaves; presets and options."""

import math
import re
import shlex

import pytest
import torch
from helpers import ROOT, TEXT, TINY, load, metrics
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=3", *TINY)
GROUPS = ("model", "optimizer", "scheduler")
OPTIONS = [f"{g}={file.stem}" for g in GROUPS for file in sorted((ROOT / "conf" / g).glob("*"))]
OPTIONS = [option for option in OPTIONS if not option.endswith("=own")]  # which need a class
PRESETS = sorted(
    file.stem
    for file in (ROOT / "conf" / "experiment").glob("*.yaml")
    if "shakespeare" not in file.stem  # in test_figures and test_ensemble
)


@pytest.fixture(scope="module")
def watched(tmp_path_factory, command):
    """A run with everything on, and what it printed."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "book.txt").write_text(TEXT, "utf-8")
    result = command(
        "train.py", "data.path=book.txt", *TINY, "trainer.max_epochs=3",
        "trainer.limit_train_batches=20", "callbacks.samples.every_n_steps=25",
        "callbacks.samples.early=10", "callbacks.progress.seconds=0.0", cwd=folder,
    )  # fmt: skip
    assert result.code == 0, result.err
    (run,) = folder.glob("outputs/*/*")
    return folder, run, result


def test_what_is_printed(watched):
    folder, run, result = watched
    name = str(run.relative_to(folder))
    positions = [
        result.out.index(words)
        for words in (
            "untrained: validation",
            "sample after 0 windows",
            "sample after 10 windows",
            "window 20, ",
            "sample after 25 windows",
            "window 40, ",
            "sample after 50 windows",
            "window 60, ",
            "sample after 60 windows",
            "best validation ",
            "last validation ",
            f"run              {name}\n",
            f"sample.py checkpoint={name}/checkpoints/best.ckpt",
            f"train.py resume={name} ",
            f"python -m charrnn tensorboard {name}\n",
        )
    ]
    assert positions == sorted(positions)
    line = r"window \d+/60, \d\d:\d\d left, loss \d\.\d+, bpc \d\.\d+, [\d,]+ characters/s\n"
    assert re.fullmatch(f"({line})+", result.err)
    losses = [float(row["val/loss"]) for row in metrics(run) if row["val/loss"]]
    assert len(losses) == 4 and min(losses) < losses[0]
    assert f"best validation  {min(losses):.4f} nats, {min(losses) / math.log(2):.4f}" in result.out


def test_the_commands_at_the_end_work(watched, command):
    folder, run, result = watched
    lines = dict(re.findall(r"^(sample from it|go on)   +python (.*)$", result.out, re.M))
    script, *arguments = shlex.split(lines["sample from it"])
    sampled = command(script, *arguments, "length=30", "seed=1", cwd=folder)
    assert (sampled.code, len(sampled.out)) == (0, 30)
    script, *arguments = shlex.split(lines["go on"])
    assert arguments[-1] == "trainer.max_epochs=6"
    assert command(script, *arguments, "trainer.max_epochs=4", cwd=folder).code == 0
    assert load(run / "checkpoints" / "last.ckpt")["charrnn"]["rounds"] == 4
    for fewer in ((), ("trainer.max_epochs=1",)):
        again = command(script, f"resume={run}", *fewer, cwd=folder)
        assert again.code == 0 and "nothing is left to do: 4 rounds" in again.out


def test_resume_may_be_empty_and_have_a_prefix(command, text_file, tmp_path):
    arguments = (f"data.path={text_file}", f"hydra.run.dir={tmp_path / 'run'}", *SHORT)
    result = command("train.py", "resume=", *arguments)
    assert result.code == 0, result.err
    result = command("train.py", f"+resume={tmp_path / 'run'}", "trainer.max_epochs=2")
    assert result.code == 0, result.err


def test_what_a_run_leaves(watched):
    _, run, _ = watched
    assert sorted(p.name for p in run.iterdir()) == [
        ".hydra", "checkpoints", "metrics.csv", "report.html", "samples.jsonl", "tensorboard"
    ]  # fmt: skip
    names = {p.name for p in (run / "checkpoints").iterdir()}
    rounds = {f"round_{i:04d}.ckpt" for i in range(4)}
    assert names >= rounds | {"last.ckpt", "best.ckpt"}
    assert load(run / "checkpoints" / "round_0000.ckpt")["charrnn"]["windows"] == 0
    for file in (run / "checkpoints").iterdir():
        assert torch.serialization.get_unsafe_globals_in_checkpoint(file) == []


def test_tensorboard_has_it_all(watched):
    _, run, _ = watched
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) >= {
        "train/loss", "train/bpc", "train/lr", "train/grad_norm", "train/clipped",
        "train/chars_per_second", "train/passes", "val/loss", "val/bpc",
    }  # fmt: skip
    assert {"sample/text_summary", "settings/text_summary"} <= set(tags["tensors"])
    (settings,) = events.Tensors("settings/text_summary")
    assert b"hidden_size: 8" in settings.tensor_proto.string_val[0]
    by_step = {e.step: e.value for e in events.Scalars("train/loss")}
    for row in metrics(run):
        if row["train/loss"]:
            assert by_step[int(row["step"])] == pytest.approx(float(row["train/loss"]))
            bits = float(row["train/loss"]) / math.log(2)
            assert float(row["train/bpc"]) == pytest.approx(bits)
    # A training part of N characters is a pass of ceil(ceil(N / T) / B) windows.
    windows = math.ceil(math.ceil(int(len(TEXT) * 0.9) / 7) / 3)
    last = [row for row in metrics(run) if row["train/passes"]][-1]
    assert float(last["train/passes"]) == pytest.approx(int(last["step"]) / windows)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_starts(command, text_file, tmp_path, option):
    result = command("train.py", option, f"data.path={text_file}", *SHORT, cwd=tmp_path)
    assert result.code == 0, result.err


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_starts(command, text_file, tmp_path, preset):
    """At its own settings but for the length, and on a text that is here, which is small."""
    small = ("classic", "smoke")
    large = ("data.valid_size=500", "data.test_size=500", "model.hidden_size=8")
    result = command(
        "train.py", f"experiment={preset}", f"data.path={text_file}", "trainer.max_epochs=1",
        "trainer.limit_train_batches=3", *(() if preset in small else large),
        cwd=tmp_path,
    )  # fmt: skip
    assert result.code == 0, result.err


def test_classic_is_the_2016_program(command, text_file, tmp_path):
    run = tmp_path / "run"
    result = command(
        "train.py", "experiment=classic", f"data.path={text_file}", f"hydra.run.dir={run}",
        "trainer.max_epochs=1", "trainer.limit_train_batches=2",
    )  # fmt: skip
    assert result.code == 0, result.err
    settings = load(run / "checkpoints" / "last.ckpt")["charrnn"]["settings"]
    model, data, trainer = settings["model"], settings["data"], settings["trainer"]
    assert model["_target_"].endswith(".GRUEncode")
    assert (model["reset"], model["gate"]) == ("before", "hard_sigmoid")
    assert (model["num_layers"], model["hidden_size"], model["dropout"]) == (2, 128, 0.0)
    assert (data["batch_size"], data["seq_len"], data["train_fraction"]) == (16, 100, None)
    assert settings["optimizer"]["_target_"] == "torch.optim.RMSprop"
    assert (settings["optimizer"]["lr"], settings["optimizer"]["alpha"]) == (1e-3, 0.95)
    assert settings["scheduler"]["_target_"] == "charrnn.training.schedulers.Adaptive"
    assert (settings["task"]["l2"], settings["task"]["reduction"]) == (0.1, "sum")
    assert (trainer["gradient_clip_val"], trainer["gradient_clip_algorithm"]) == (5.0, "value")


@pytest.mark.parametrize(
    ("limit", "more"),
    [
        ("trainer.max_steps=1", "trainer.max_steps=2"),
        ("trainer.max_time=00:00:00:30", "trainer.max_epochs=2"),
    ],
)
def test_other_ends(command, text_file, tmp_path, limit, more):
    result = command("train.py", f"data.path={text_file}", *SHORT, limit, cwd=tmp_path)
    assert result.code == 0, result.err
    assert re.search(rf"go on .* {more}\n", result.out)


@pytest.mark.parametrize(
    "text",
    ["ab", "aaaaaaa", "\u043f\u0440\u0438\u0432\u0435\u0442 \u4e16\u754c\U0001f600\r\n\0 e\u0301"],
)
@pytest.mark.parametrize("unit", ["char", "byte"])
def test_small_corpora(command, tmp_path, text, unit):
    """Smaller than a batch of windows: the circle wraps."""
    (tmp_path / "a, 'b'=(c) ${d}.txt").write_bytes(text.encode())
    result = command(
        "train.py", "data.path=a, 'b'=(c) ${d}.txt", f"data.unit={unit}", *SHORT,
        f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path,
    )  # fmt: skip
    assert result.code == 0, result.err
    charset = load(tmp_path / "run" / "checkpoints" / "last.ckpt")["charrnn"]["charset"]
    read = text.replace("\r\n", "\n")
    expected = read if unit == "char" else text.encode().decode("latin-1")
    assert (charset["characters"], charset["unit"]) == ("".join(sorted(set(expected))), unit)
    resumed = command("train.py", "resume=run", "trainer.max_epochs=2", cwd=tmp_path)
    assert resumed.code == 0, resumed.err


def test_all_of_the_text_may_train(command, text_file, tmp_path):
    arguments = (f"data.path={text_file}", "data.train_fraction=1", *SHORT)
    result = command("train.py", *arguments, cwd=tmp_path)
    assert (result.code, result.err) == (0, "")
    assert "best validation" not in result.out and "checkpoints/last.ckpt" in result.out


def test_weights_of_another_run(command, trained, tmp_path):
    text = "".join(c for c in TEXT if c not in "aeiou") + "\u03b1\u03b2"
    (tmp_path / "text.txt").write_text(text, "utf-8")
    result = command("train.py", "data.path=text.txt", f"init_from={trained}", *SHORT, cwd=tmp_path)
    assert result.code == 0, result.err
    known = len(set(text) - {"\u03b1", "\u03b2"})
    assert f"init_from: weights of {known} of {known + 2} characters" in result.out


def test_rounds_are_tenths_of_a_pass(command, tmp_path):
    """25 rounds of a tenth are two passes and a half."""
    text = (TEXT * 2)[:2100]  # 1,890 train: 270 sequences of 7, 90 windows of 3 rows
    (tmp_path / "text.txt").write_text(text, "utf-8")
    result = command(
        "train.py", "data.path=text.txt", *TINY, "trainer.limit_train_batches=0.1",
        "trainer.max_epochs=25", f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path,
    )  # fmt: skip
    assert result.code == 0, result.err
    ours = load(tmp_path / "run" / "checkpoints" / "last.ckpt")["charrnn"]
    assert (ours["rounds"], ours["windows"]) == (25, 225)
    assert ours["position"] == {"window": 45, "passes": 2}


def test_going_back_says_so(command, text_file, tmp_path):
    run = tmp_path / "run"
    arguments = (f"data.path={text_file}", f"hydra.run.dir={run}", *TINY)
    assert command("train.py", *arguments, "trainer.max_epochs=2",
                   "trainer.limit_train_batches=3").code == 0  # fmt: skip
    result = command("train.py", f"resume={run}/checkpoints/round_0001.ckpt")
    assert result.code == 0 and "rewinding to window 3" in result.out
    copied = tmp_path / "copy.ckpt"
    copied.write_bytes((run / "checkpoints" / "round_0001.ckpt").read_bytes())
    result = command("train.py", f"resume={copied}", cwd=tmp_path)
    (new,) = tmp_path.glob("outputs/*/*")
    assert result.code == 0 and (new / ".hydra").is_dir()


def test_a_budget_of_characters(command, text_file, tmp_path):
    """A window is 21 characters: 1,000 are reached by the 48th, inside a round and a validation."""
    run = tmp_path / "run"
    arguments = (f"data.path={text_file}", f"hydra.run.dir={run}", *TINY[1:], "scheduler=cosine",
                 "scheduler.warmup_steps=0", "trainer.limit_train_batches=20",
                 "callbacks.samples=null", "model.parameters=2000")  # fmt: skip
    result = command("train.py", *arguments, "task.max_characters=1000")
    assert result.code == 0, result.err
    saved = load(run / "checkpoints" / "last.ckpt")
    ours = saved["charrnn"]
    assert (ours["windows"], ours["rounds"]) == (48, 2)
    assert [windows for windows, _ in ours["validations"]] == [0, 20, 40, 48]
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0, abs=1e-12)
    size = ours["settings"]["model"]["hidden_size"]
    assert f"model.parameters=2,000: model.hidden_size={size}" in result.out
    assert ours["settings"]["model"]["parameters"] is None
    assert sum(w.numel() for w in saved["state_dict"].values()) <= 2000
    line = re.search(r"^go on +python (.*)$", result.out, re.M)[1]
    assert line.endswith(" task.max_characters=2000")
    again = command("train.py", f"resume={run}")
    assert again.code == 0 and "nothing is left to do" in again.out
    assert command(*shlex.split(line)).code == 0
    assert load(run / "checkpoints" / "last.ckpt")["charrnn"]["windows"] == 96


def test_a_budget_of_time(command, text_file, tmp_path):
    run = tmp_path / "run"
    result = command(
        "train.py", f"data.path={text_file}", f"hydra.run.dir={run}", *TINY,
        "trainer.max_epochs=-1", "trainer.max_time=00:00:00:01", "callbacks.samples=null",
    )  # fmt: skip
    assert result.code == 0, result.err
    ours = load(run / "checkpoints" / "last.ckpt")["charrnn"]
    assert ours["validations"][-1][0] == ours["windows"] > 0
    line = re.search(r"^go on +python (.*)$", result.out, re.M)[1]
    assert line.endswith(" trainer.max_time=00:00:00:02")
    assert command(*shlex.split(line)).code == 0
    assert load(run / "checkpoints" / "last.ckpt")["charrnn"]["windows"] > ours["windows"]


def test_tensorboard_of_a_sweep(command, text_file, tmp_path):
    """HPARAMS has what differs and the validation; curves stand against characters too."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    swept = ("-m", f"data.path={text_file}", *TINY, "trainer.max_epochs=2", "seed=1,2",
             "trainer.limit_train_batches=20", "model=gru_resize,gru_encode",
             f"hydra.sweep.dir={tmp_path / 'sweep'}")  # fmt: skip
    assert command("train.py", *swept).code == 0
    job = tmp_path / "sweep" / "2_seed=2,model=gru_resize"
    assert command("train.py", f"resume={job}/checkpoints/round_0001.ckpt").code == 0
    events = EventAccumulator(str(job / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    plugin = events.summary_metadata["_hparams_/session_start_info"].plugin_data
    started = HParamsPluginData.FromString(plugin.content).session_start_info
    values = {key: value.string_value or value.number_value for key, value in
              started.hparams.items()}  # fmt: skip
    assert values == {"seed": 2, "model": "gru_resize"}
    plugin = events.summary_metadata["_hparams_/experiment"].plugin_data
    experiment = HParamsPluginData.FromString(plugin.content).experiment
    tags = [metric.name.tag for metric in experiment.metric_infos]
    assert tags == ["val/best_bpc", "val/bpc"] and set(tags) < set(events.Tags()["scalars"])
    for tag in ("val/bpc", "train/bpc"):
        against_windows = [(e.step * 21, e.value) for e in events.Scalars(tag)]
        assert against_windows and against_windows == [
            (e.step, e.value) for e in events.Scalars(f"versus_characters/{tag}")
        ]
    assert [e.step for e in events.Scalars("val/bpc")] == [0, 20, 40]
    best = [e.value for e in events.Scalars("val/best_bpc")]
    assert best == sorted(best, reverse=True)
    assert best[-1] == min(e.value for e in events.Scalars("val/bpc"))
