"""Reading checkpoints: damaged files, files of other programs, and files with code in them."""

import os
import pickle
import warnings

import pytest
import torch
from small_models import saved_model as make

import charrnn
from charrnn import GRUEncode, InputError
from charrnn.checkpoint.format import FORMAT, MOVED, read, update_settings
from charrnn.checkpoint.initialize import initialize_model
from charrnn.checkpoint.serialization import Damaged, save


def damage(data, kind):
    return {
        "empty": b"",
        "cut": data[: len(data) // 2],
        "cut-by-one": data[:-1],
        "text": b"not a checkpoint\n",
        "bytes": bytes(range(256)) * 40,
        "zip": b"PK\x05\x06" + bytes(18),  # an empty archive
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "cut", "cut-by-one", "text", "bytes", "zip"])
def test_damaged_files(tmp_path, kind):
    file = tmp_path / "last.ckpt"
    save(make(GRUEncode, "abc")[2], file)
    file.write_bytes(damage(file.read_bytes(), kind))
    with pytest.raises(Damaged, match=r"last\.ckpt: it is (torn|damaged).*; give another"):
        read(file)


@pytest.mark.parametrize(
    "foreign",
    [{}, [], torch.zeros(3), {"state_dict": {}}, {"charrnn": 3}, {"charrnn": {"windows": 1}}],
    ids=["empty", "list", "tensor", "lightning", "number", "no-format"],
)
def test_checkpoints_of_other_programs(tmp_path, foreign):
    torch.save(foreign, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"other\.ckpt: a checkpoint of another program"):
        read(tmp_path / "other.ckpt")


def test_another_format(tmp_path):
    saved = {"charrnn": {"format": FORMAT + 1, "version": "9.9"}}
    torch.save(saved, tmp_path / "new.ckpt")
    with pytest.raises(InputError, match=rf"charrnn 9\.9 in format {FORMAT + 1}.* reads format"):
        read(tmp_path / "new.ckpt")


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("how", ["torch", "pickle"])
@pytest.mark.parametrize("inside", [True, False], ids=["inside_a_checkpoint", "whole_file"])
def test_a_malicious_file_runs_nothing(tmp_path, how, inside):
    made = tmp_path / "made"
    evil = Malicious(made)
    saved = {"charrnn": {"format": FORMAT, "settings": evil}} if inside else evil
    file = tmp_path / "evil.ckpt"
    if how == "torch":
        torch.save(saved, file)
    else:
        file.write_bytes(pickle.dumps(saved))
    for reader in (read, charrnn.load, lambda f: initialize_model(*make(GRUEncode, "abc")[:2], f)):
        with pytest.raises(InputError, match=r"evil\.ckpt"):
            reader(file)
    assert not made.exists()
    with warnings.catch_warnings():  # the same file read without weights_only runs the code
        warnings.simplefilter("ignore")
        torch.load(file, weights_only=False) if how == "torch" else pickle.loads(file.read_bytes())
    assert made.exists()


def test_targets_of_earlier_versions_are_updated(tmp_path):
    _, _, saved = make(GRUEncode, "abc")
    saved["charrnn"]["settings"] |= {
        "task": {"_target_": "charrnn.task.CharTask", "l2": 0.1},
        "callbacks": [{"_target_": "charrnn.callbacks.Metrics"}],
    }
    save(saved, tmp_path / "old.ckpt")
    settings = read(tmp_path / "old.ckpt")["charrnn"]["settings"]
    assert settings["task"] == {"_target_": "charrnn.training.task.CharTask", "l2": 0.1}
    assert settings["callbacks"] == [{"_target_": "charrnn.callbacks.Metrics"}]


@pytest.mark.parametrize("before", MOVED)
def test_current_targets_stay(before):
    now = {"_target_": MOVED[before] + "Name"}
    assert update_settings({"_target_": before + "Name"}) == now == update_settings(now)
