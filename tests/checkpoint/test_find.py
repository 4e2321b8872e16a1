"""Finding the checkpoint that a path names, and the newest undamaged one of a run."""

import pytest
from small_models import saved_model as make

from charrnn import GRUEncode, InputError
from charrnn.checkpoint.find import find_checkpoint, is_checkpoint
from charrnn.checkpoint.newest import find_newest, find_resumable
from charrnn.checkpoint.serialization import Damaged, save


def test_a_run_s_folder_names_its_last_checkpoint(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    with pytest.raises(InputError, match="run: no checkpoint there"):
        find_checkpoint(run)
    file = run / "checkpoints" / "last.ckpt"
    file.touch()
    assert find_checkpoint(run) == find_checkpoint(str(file)) == file
    with pytest.raises(InputError, match=r"missing\.ckpt: no checkpoint there"):
        find_checkpoint(run / "missing.ckpt")


@pytest.fixture
def run(tmp_path):
    """A run's folder with checkpoints of windows 0, 20 and 40, the last of which is last.ckpt."""
    _, _, saved = make(GRUEncode, "abc")
    for name, windows in (("round_0000", 0), ("round_0001", 20), ("last", 40)):
        saved["charrnn"]["windows"] = windows
        save(saved, tmp_path / "checkpoints" / f"{name}.ckpt")
    return tmp_path


def test_the_newest_checkpoint_before_a_window(run):
    folder = run / "checkpoints"
    assert find_newest(run) == (folder / "last.ckpt", 40)
    assert find_newest(run, 39) == find_newest(run, 20) == (folder / "round_0001.ckpt", 20)
    with pytest.raises(InputError, match="no other checkpoint of this run is whole"):
        find_newest(run, -1)


def test_a_damaged_last_checkpoint_gives_way_to_the_newest_other(run, capsys):
    folder = run / "checkpoints"
    assert find_resumable(run) == folder / "last.ckpt" and capsys.readouterr().err == ""
    (folder / "last.ckpt").write_bytes(b"")
    assert find_resumable(run) == folder / "round_0001.ckpt"
    assert "going on from round_0001.ckpt, window 20" in capsys.readouterr().err
    for file in folder.iterdir():
        file.write_bytes(b"")
    with pytest.raises(Damaged, match="start the run again"):
        find_resumable(run)


def test_a_text_file_is_no_checkpoint(run, tmp_path):
    (tmp_path / "text.txt").write_text("a text")
    (tmp_path / "copy").write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())
    assert not is_checkpoint(tmp_path / "text.txt") and not is_checkpoint(tmp_path / "none.ckpt")
    assert is_checkpoint(run) and is_checkpoint(tmp_path / "copy")
    assert is_checkpoint(run / "checkpoints" / "last.ckpt")
