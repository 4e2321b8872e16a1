"""A run's folder tells what it was made from, and is enough to reproduce the run."""

import pytest
import torch
import yaml
from helpers import ROOT, TEXT, TINY, load, metrics, same

SETTINGS = (*TINY, "trainer.max_epochs=2", "trainer.limit_train_batches=15", "model.dropout=0.2",
            "callbacks.samples.every_n_steps=10")  # fmt: skip


def numbers(run):
    return [{k: v for k, v in r.items() if k != "train/chars_per_second"} for r in metrics(run)]


def test_run_is_reproduced_from_its_folder(command, text_file, tmp_path):
    arguments = ("data.path=text.txt", "optimizer=adam", "model=gru_resize", "seed=5", *SETTINGS)
    assert command("train.py", *arguments, "hydra.run.dir=run", cwd=tmp_path).code == 0
    (tmp_path / "elsewhere").mkdir()
    again = ("train.py", "--config-path", "../run/.hydra", "--config-name", "config")
    result = command(*again, cwd=tmp_path / "elsewhere")
    assert (result.code, result.err) == (0, ""), result.err
    (new,) = tmp_path.glob("elsewhere/outputs/*/*")
    before, after = (load(r / "checkpoints" / "last.ckpt") for r in (tmp_path / "run", new))
    for key in ("state_dict", "optimizer_states"):
        assert same(before[key], after[key])
    assert same(before["charrnn"]["carry"], after["charrnn"]["carry"])
    assert numbers(tmp_path / "run") == numbers(new)
    other = command(*again, "seed=6", "hydra.run.dir=other", cwd=tmp_path / "elsewhere")
    assert other.code == 0 and numbers(new) != numbers(tmp_path / "elsewhere" / "other")
    refused = command(*again, "model=gru_encode", cwd=tmp_path / "elsewhere")
    assert refused.code == 2 and "model: a run that is reproduced keeps it" in refused.err
    nowhere = command("train.py", "--config-path", "nowhere", cwd=tmp_path)
    assert nowhere.code == 2 and nowhere.err.count("\n") == 1


def test_provenance_of_a_run(trained):
    about = yaml.safe_load((trained / ".hydra" / "about.yaml").read_text("utf-8"))
    assert about["corpus"]["characters"] == len(TEXT) and about["seed"] == 1
    saved = load(trained / "checkpoints" / "last.ckpt")
    assert about["corpus"]["sha256"] == saved["charrnn"]["corpus"]["sha256"]
    assert about["parameters"] == sum(w.numel() for w in saved["state_dict"].values())
    assert about["torch"] == torch.__version__ and "model.hidden_size=8" in about["overrides"]
    assert "train.py" in about["command"]


@pytest.mark.parametrize("arguments", [(), ("sweep=lr",), ("experiment=tiny_shakespeare",)])
def test_settings_fit_a_few_screens(command, arguments, tmp_path):
    result = command("train.py", *arguments, "--cfg", "job", cwd=tmp_path)
    assert result.code == 0 and len(result.out.splitlines()) < 90, result.err  # two screens


def test_every_option_has_a_comment():
    files = sorted((ROOT / "conf").glob("*/*.yaml"))
    for file in files:
        lines = [x for x in file.read_text("utf-8").splitlines() if not x.startswith("# @package")]
        assert lines[0].startswith("# ") and len(lines[0]) > 12, file
    assert len(files) > 15
