"""Lines of jobs that run at once carry their job's name; streams that are not there."""

import errno
import io
import os
import sys
import types

import pytest
from helpers import TEXT, TINY

from charrnn.cli.streams import prefixed_output


def test_lines_begin_with_a_name(capsys):
    with prefixed_output("0_lr=1"):
        print("a\nb")
        print("half", end="")
        assert not sys.stdout.isatty()
        print(" a line")
        print("to standard error", file=sys.stderr)
        print("the end", end="")
    print("after")
    out, err = capsys.readouterr()
    assert out == "0_lr=1: a\n0_lr=1: b\n0_lr=1: half a line\n0_lr=1: the end\nafter\n"
    assert err == "0_lr=1: to standard error\n"


@pytest.mark.parametrize("option", ["--cfg=job", "--hydra-help", "--info=config"])
def test_nothing_is_shown_where_nobody_can_see_it(monkeypatch, capfd, option):
    from charrnn.cli.main import main

    monkeypatch.setattr(sys, "stdout", None)  # as Python has it after >&-
    with pytest.raises(SystemExit) as end:
        main(["train", option])
    line = "error: standard output is closed; there is nowhere to write to\n"
    assert (end.value.code, capfd.readouterr().err) == (2, line)


@pytest.mark.parametrize("name", ["train", "sample", "export", "--help"])
def test_a_working_directory_that_was_removed(tmp_path, monkeypatch, capfd, name):
    from charrnn.cli.main import main

    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit) as end:
        main([name, "run"])
    line = "error: the working directory has been removed; change to another\n"
    assert (end.value.code, capfd.readouterr().err) == (2, line)


@pytest.mark.parametrize("stream", [None, types.SimpleNamespace(write=len, flush=bool)])
def test_training_with_streams_of_a_host(tmp_path, monkeypatch, stream):
    """As programs without a console have them, or with no more than print needs."""
    import charrnn

    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    settings = {"max_epochs": 1, "limit_train_batches": 3, "logger": "none"}
    run = charrnn.train(text=TEXT, folder=tmp_path / "run", overrides=TINY, **settings)
    assert [row["window"] for row in run.validations] == [0, 3]


class ForReading(io.StringIO):
    def write(self, text):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def flush(self):
        self.write("")


@pytest.mark.parametrize("words", [["--help"], ["corpus", "list"], ["train", "--cfg=job"]], ids=str)
def test_an_output_that_is_open_for_reading_only(monkeypatch, capfd, words):
    """As after ``>&0`` with input from a file."""
    from charrnn.cli.main import main

    monkeypatch.setattr(sys, "stdout", ForReading())
    with pytest.raises(SystemExit) as end:
        main(words)
    line = "error: a file cannot be written (Bad file descriptor)\n"
    assert (end.value.code, capfd.readouterr().err) == (2, line)
