"""Folders and paths as the user names them; a job has a folder of its own."""

import os
import shlex

import pytest
from helpers import TEXT, TINY, assert_one_line, listing, load, metrics

from charrnn.runs.lock import run_lock

SHORT = (
    *TINY, "trainer.max_epochs=1", "trainer.limit_train_batches=3", "data.valid_size=50",
    "trainer.num_sanity_val_steps=0", "callbacks.samples=null", "logger=none",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    return tmp_path


def test_jobs_of_one_name_have_a_folder_each(invoke, folder):
    """With a name of the user's in which they do not differ, and with quotes in it."""
    arguments = ("-m", "data.path=text.txt", *SHORT, "seed=1,2", "hydra.sweep.dir=sweep",
                 "hydra.sweep.subdir=it's ${data.batch_size}")  # fmt: skip
    for begun in (True, False):
        result = invoke("train", *arguments, cwd=folder)
        assert result.code == 0, result
        assert result.out.count("finished before") == 2 * (not begun)
    jobs = {path.parent.parent.name: load(path) for path in folder.glob("sweep/*/*/last.ckpt")}
    seeds = {name: job["charrnn"]["settings"]["seed"] for name, job in jobs.items()}
    assert seeds == {"it's 3": 1, "it's 3-2": 2}


def test_a_job_in_the_folder_of_another_fails(invoke, folder):
    run = folder / "sweep" / "0_seed=1"
    arguments = ("data.path=text.txt", *SHORT)
    assert invoke("train", *arguments, f"hydra.run.dir={run}", cwd=folder).code == 0
    (run / ".hydra" / "job.json").unlink()
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    sweep = ("-m", "seed=1,2", "hydra.sweep.dir=sweep", "trainer.max_epochs=2")
    result = invoke("train", *arguments, *sweep, cwd=folder)
    assert result.code == 1 and "0_seed=1: holds another job" in result.err, result
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before
    assert (folder / "sweep" / "1_seed=2" / "checkpoints" / "last.ckpt").exists()


def test_a_job_that_another_process_trains(invoke, folder):
    arguments = ("data.path=text.txt", *SHORT, "-m", "seed=1,2", "hydra.sweep.dir=sweep")
    (folder / "sweep" / "0_seed=1").mkdir(parents=True)
    with run_lock(folder / "sweep" / "0_seed=1"):
        result = invoke("train", *arguments, cwd=folder)
    assert result.code == 1 and "0_seed=1: another process trains it" in result.out, result
    assert not (folder / "sweep" / "0_seed=1" / "checkpoints").exists()
    assert (folder / "sweep" / "1_seed=2" / "checkpoints" / "last.ckpt").exists()


def test_a_folder_is_claimed_without_hydras_files(invoke, folder):
    arguments = ("data.path=text.txt", *SHORT, "hydra.run.dir=run", "hydra.output_subdir=null")
    assert invoke("train", *arguments, cwd=folder).code == 0
    before = listing(folder)
    assert_one_line(invoke("train", *arguments, cwd=folder), ["holds a run already"])
    result = invoke("train", "resume=run", "hydra.run.dir=other", cwd=folder)
    assert_one_line(result, ["hydra.run.dir=other", "stays in its folder", "init_from="])
    assert listing(folder) == before


def test_relative_paths_are_those_of_the_user(invoke, folder):
    """With hydra.job.chdir=true, where a run's process is in the run's folder."""
    there = "hydra.job.chdir=true"
    result = invoke("train", "data.path=text.txt", *SHORT, "hydra.run.dir=run", there, cwd=folder)
    assert result.code == 0 and "checkpoint=run/checkpoints/last.ckpt" in result.out, result
    assert "resume=run trainer.max_epochs=2" in result.out
    arguments = ("-m", "data.path=[text.txt,text.txt]", "data.charset=text.txt", "init_from=run",
                 *SHORT, "seed=1,2", "hydra.sweep.dir=sweep", there)  # fmt: skip
    result = invoke("train", *arguments, cwd=folder)
    assert result.code == 0 and "run: sweep/0_seed=1\n" in result.out, result


def test_names_that_are_no_utf8(invoke, folder):
    text, odd = os.fsdecode(b"caf\xe9.txt"), os.fsdecode(b"r\xe9")
    (folder / "text.txt").rename(folder / text)
    arguments = (f"data.path={text}", *SHORT[:-1], "hydra.run.dir=run")
    assert invoke("train", *arguments, cwd=folder).code == 0  # with TensorBoard's HPARAMS
    before = listing(folder)
    (folder / "run").rename(folder / odd)
    result = invoke("train", f"resume={odd}", "trainer.max_epochs=2", cwd=folder)
    assert_one_line(result, [r"resume=", r"r\udce9: its name is not UTF-8"])
    (folder / odd).rename(folder / "run")
    result = invoke("train", f"data.path={text}", *SHORT, f"hydra.run.dir={odd}", cwd=folder)
    assert_one_line(result, [r"r\udce9: its name is not UTF-8"])
    sweep = (f"data.path={text}", *SHORT, "-m", "seed=1,2", f"hydra.sweep.dir={odd}")
    assert_one_line(invoke("train", *sweep, cwd=folder), ["hydra.sweep.dir", "not UTF-8"])
    assert listing(folder) == before


def test_a_folder_that_is_a_link_to_nowhere(invoke, folder):
    (folder / "run").symlink_to("nowhere")
    result = invoke("train", "data.path=text.txt", *SHORT, "hydra.run.dir=run", cwd=folder)
    assert_one_line(result, ["hydra.run.dir=", "run: is a file; name another folder"])


def test_a_run_that_saved_nothing_says_so(invoke, folder):
    arguments = ("data.path=text.txt", *SHORT, "hydra.run.dir=run", "~callbacks.checkpoint")
    result = invoke("train", *arguments, cwd=folder)
    assert result.code == 0 and "no checkpoint was saved" in result.out, result
    assert "tensorboard" not in result.out and "curves           run/metrics.csv" in result.out
    result = invoke("train", "resume=run", cwd=folder)
    assert result.code == 0 and "starting again from the beginning" in result.err, result


def test_a_sweep_shows_no_settings(invoke, folder):
    for option in ("--cfg=job", "--info", "--help"):
        result = invoke("train", "-m", "seed=1,2", option, cwd=folder)
        assert_one_line(result, ["-m: starts a sweep"])


def test_rows_of_a_csv_logger_stay(invoke, folder):
    log = "logger.mine._target_=pytorch_lightning.loggers.CSVLogger"
    ours = ("data.path=text.txt", *SHORT[:-1], "trainer.log_every_n_steps=1", log)
    named = ("logger.mine.name=a", "logger.mine.version=b", "hydra.run.dir=run")
    assert invoke("train", *ours, *named, cwd=folder).code == 0
    assert invoke("train", "resume=run", "trainer.max_epochs=2", cwd=folder).code == 0
    file = folder / "run" / "a" / "b" / "metrics.csv"
    nameless = ("logger.mine.name=", "logger.mine.version=", "hydra.run.dir=x")
    result = invoke("train", *ours, *nameless, cwd=folder)
    assert_one_line(result, ["logger.mine: its metrics.csv would be that of the run"])
    header = file.read_text().splitlines()[0].split(",")
    column = header.index("step")
    steps = [line.split(",")[column] for line in file.read_text().splitlines()[1:]]
    assert list(dict.fromkeys(steps)) == [str(step) for step in range(1, 7)]


def test_losses_over_a_part_of_the_text_are_not_best(invoke, folder):
    rounds = ("data.path=text.txt", *SHORT, "data.valid_size=500", "trainer.max_epochs=2")
    part = ("trainer.num_sanity_val_steps=1", "optimizer.lr=0.5", "hydra.run.dir=run")
    result = invoke("train", *rounds, *part, cwd=folder)
    assert result.code == 0, result
    ours = load(folder / "run" / "checkpoints" / "last.ckpt")["charrnn"]
    losses = [loss for _, loss in ours["validations"]]
    assert losses[0] < min(losses[1:]), "the part must look better, or this shows nothing"
    best = load(folder / "run" / "checkpoints" / "best.ckpt")["charrnn"]
    assert best["windows"] > 0 and f"best validation  {min(losses[1:]):.4f} nats" in result.out
    assert [row["val/characters"] for row in metrics(folder / "run") if row["val/loss"]][1:] == [
        "500", "500"
    ]  # fmt: skip
    from charrnn.runs import read_job

    assert [w for w, _ in read_job(folder / "run").curve] == [3, 6]


@pytest.mark.parametrize("scheduler", ["OneCycleLR", "LinearLR", "CosineAnnealingLR"])
def test_the_command_to_go_on_works(invoke, folder, scheduler):
    own = {"OneCycleLR": "max_lr=0.01", "LinearLR": "total_iters=2", "CosineAnnealingLR": "T_max=3"}
    arguments = (
        "data.path=text.txt", *SHORT, "hydra.run.dir=run",
        f"scheduler._target_=torch.optim.lr_scheduler.{scheduler}", f"scheduler.{own[scheduler]}",
    )  # fmt: skip
    result = invoke("train", *arguments, cwd=folder)
    assert result.code == 0, result
    (line,) = (line for line in result.out.splitlines() if line.startswith("go on"))
    again = shlex.split(line)[4:]
    result = invoke("train", *again, cwd=folder)
    assert result.code == 0 and "(window 6)" in result.out, result
