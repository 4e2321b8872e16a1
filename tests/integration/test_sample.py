"""sample.py: text to standard output and nothing else; and charrnn.load beside it."""

import os
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT, TEXT

import charrnn


@pytest.fixture(scope="module")
def model(trained):
    return charrnn.load(trained)


def sample(command, trained, *args, **kwargs):
    result = command("sample.py", f"checkpoint={trained}", *args, **kwargs)
    assert (result.code, result.err) == (0, ""), result
    return result.out


def test_the_same_text_as_in_python(command, trained, model):
    for settings in ({"seed": 3}, {"seed": 3, "temperature": 0.5, "top_k": 5, "top_p": 0.9}):
        arguments = [f"{key}={value}" for key, value in settings.items()]
        expected = model.generate("import ", length=40, **settings)
        assert sample(command, trained, "prompt=import ", "length=40", *arguments) == expected
        assert "".join(model.stream("import ", length=40, **settings)) == expected


def test_greedy_needs_no_seed(command, trained):
    first, again = (sample(command, trained, "temperature=0", "length=30") for _ in range(2))
    assert first == again and len(first) == 30


def test_several_samples(command, trained, model):
    out = sample(command, trained, "num_samples=3", "length=20", "seed=5", "prompt=x")
    assert out == "\n".join(model.generate_many(3, "x", length=20, seed=5))


@pytest.mark.parametrize(
    "prompt",
    ["", "a, 'b'", "[1", "{'k': (1)}", "null", "x\\", "\n\n"],
)
def test_prompts_are_taken_as_they_are(command, trained, prompt):
    assert sample(command, trained, f"prompt={prompt}", "length=0") == prompt


def test_a_long_prompt_warms_the_state(command, trained, model):
    typed = TEXT[:5000].replace("\\n", "\\\\n").replace("\\t", "\\\\t")
    assert typed != TEXT[:5000]
    out = sample(command, trained, f"prompt={typed}", "length=5", "temperature=0")
    assert out[:5000] == TEXT[:5000]
    assert out == model.generate(TEXT[:5000], length=5, temperature=0)


def test_a_prompt_may_have_newlines_as_stop_does(command, trained, model):
    out = sample(command, trained, r"prompt=x:\n\n", "length=50", "temperature=0", r"stop=\n")
    assert out == model.generate("x:\n\n", length=50, temperature=0, stop="\n")


def test_unknown_characters(command, trained):
    for unknown, expected in (("skip", "ab"), ("replace", "a\ufffdb")):
        out = sample(command, trained, "prompt=a\u2603b", f"unknown={unknown}", "length=0")
        assert out == expected


def test_alphabets_and_beams(command, trained, model):
    """Brackets are characters as any others, and not a list."""
    out = sample(command, trained, "beam=3", "allow=[a,b]\\n", "length=50", "no_repeat=2")
    assert out == model.generate("", 50, beam=3, allow="[a,b]\n", no_repeat=2)
    assert set(out) <= set("[a,b]\n")
    result = command("sample.py", f"checkpoint={trained}", "beam=3", "temperature=0.5")
    assert (result.code, result.out) == (2, "") and result.err.count("\n") == 1
    assert "temperature=0.5 must be 1 with beam" in result.err


@pytest.mark.parametrize("stop", ["\\n", "\n", "e", "[e,t]"])
def test_stop(command, trained, stop):
    out = sample(command, trained, "length=5000", "seed=1", f"stop={stop}")
    ends = {"\\n": "\n", "[e,t]": "et"}.get(stop, stop)
    assert len(out) < 5000 and out[-1] in ends and not set(ends) & set(out[:-1])


def test_latest_is_the_newest_run(command, trained, tmp_path):
    for number, name in enumerate(["outputs/2026-01-01/b", "multirun/x/0", "outputs/2026-01-02/a"]):
        shutil.copytree(trained, tmp_path / name)
        last = tmp_path / name / "checkpoints" / "last.ckpt"
        os.utime(last, (number, number))
        if number < 2:
            last.write_bytes(b"an older run, which is not read")
            os.utime(last, (number, number))
    result = command("sample.py", "length=9", "seed=1", cwd=tmp_path)
    assert (result.code, len(result.out)) == (0, 9), result.err
    assert result.err == "checkpoint=outputs/2026-01-02/a/checkpoints/last.ckpt\n"


def test_without_the_corpus(command, trained, tmp_path):
    """Nothing outside the checkpoint is needed."""
    file = tmp_path / "single.ckpt"
    shutil.copy(trained / "checkpoints" / "last.ckpt", file)
    hidden = (trained.parent / "text.txt").rename(trained.parent / "hidden.txt")
    try:
        assert len(sample(command, file, "length=9", cwd=tmp_path)) == 9
        assert charrnn.load(file).score(TEXT[:50]).shape == (49,)
    finally:
        hidden.rename(trained.parent / "text.txt")


def test_characters_come_one_by_one(trained):
    """A reader that leaves early is no error to speak of, and had its text before the end."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "sample.py"), f"checkpoint={trained}", "length=10000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert len(process.stdout.read(20)) == 20
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), errors) == (1, b"")
