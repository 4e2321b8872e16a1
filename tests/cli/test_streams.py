"""Lines of jobs that run at once carry their job's name."""

import sys

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
