"""Commands that READMEs, help texts and errors offer: each is run, or a row says why not."""

import ast
import io
import re
import shutil

import pytest
import tomllib
from helpers import ROOT, TEXT, short_run
from pages import walkthrough_blocks
from printed import COMMAND, SHORT, commands
from runs_in_process import composed

import charrnn
from charrnn.cli.main import COMMANDS

PAGES = (*ROOT.glob("*.md"), *ROOT.glob("conf/*.md"), *ROOT.glob("charrnn/**/*.md"))
HELP = ("train", "sample", "evaluate")
"""Files of conf/ whose text ``--help`` prints."""


def offered():
    """The commands of lines of READMEs and help texts, with where they are."""
    found, walkthrough = {}, "".join(block for _, block in walkthrough_blocks())
    for page in (*PAGES, *(ROOT / "conf" / f"{name}.yaml" for name in HELP)):
        for line in page.read_text("utf-8").replace("\\\n", " ").splitlines():
            line = line.strip().removeprefix("$ ").removeprefix("# ")
            line = re.sub(r"\s+# .*", "", re.split(r"\s{3,}(?![#\w]*=)", line)[0])
            is_own = line in walkthrough or page.name == "CHANGELOG.md"
            if line.startswith(("python ", "charrnn ")) and COMMAND.match(line) and not is_own:
                found.setdefault(line, f"{page.parent.name}/{page.name}")
    return found


OFFERED = offered()
NOT_RUN = {
    r"^charrnn tensorboard": "serves until Ctrl-C: tests/cli/test_tensorboard.py",
    r" -m | sweep=": "composed here; every preset of a sweep is run by test_sweeps.py",
    r"devices=2": "composed here; several processes are run by test_processes.py",
    r"\[|\.\.\.|\|": "has parts to choose from",
    r"OPTION|RATE|NAME": "has a name to be filled in",
}
"""What is not run, by pattern, and why."""


def why_not_run(line):
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, line)), "")


RUNS = ("RUN", "dir", "shake", "ten", "outputs/2026-01-01/12-00-00", "SWEEP/0", "SWEEP/1")
TEXTS = ("book.txt", "other.txt", "small.txt", "library.txt", "FILE")


DIGITS = "0123456789+="
"""So that a model of arithmetic can be asked for."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cache):
    """A folder with what the commands name."""
    folder = tmp_path_factory.mktemp("offered")
    (folder / "text.txt").write_text(TEXT + DIGITS, "utf-8")
    charrnn.train(overrides=short_run(folder))
    for name in RUNS:
        shutil.copytree(folder / "run", folder / name)
    for name in TEXTS:
        (folder / name).write_text(TEXT[:1500] + DIGITS, "utf-8")
    (folder / "SWEEP" / "multirun.yaml").touch()
    (folder / "lines.txt").write_text("import os\nimport re\n", "utf-8")
    return folder


def arguments_of(name, arguments, number):
    """A command's arguments, with what makes it short."""
    keys = {argument.partition("=")[0] for argument in arguments}
    if name == "sample" and not keys & {"interactive", "score"}:
        return [*arguments, "length=5"]
    if name != "train" or "mode" in keys or "--help" in keys:
        return arguments
    if "resume" in keys:
        return [*arguments, "trainer.max_steps=42"]
    if "--config-path" in keys:
        return [*arguments, f"hydra.run.dir=made/{number}"]
    more = [
        *SHORT,
        "model.num_layers=1",
        "data.path=book.txt",
        "data.test_size=50",
        f"hydra.run.dir=made/{number}",
    ]
    ours = {setting.partition("=")[0] for setting in more}
    return [*(a for a in arguments if a.partition("=")[0] not in ours), *more]


def test_there_are_many():
    assert len(OFFERED) > 40 and sum(not why_not_run(line) for line in OFFERED) > 25
    for pattern in NOT_RUN:
        assert any(re.search(pattern, line) for line in OFFERED), f"nothing is like {pattern}"


@pytest.mark.parametrize("line", OFFERED)
def test_offered(line, folder, invoke, monkeypatch):
    why = why_not_run(line)
    if why and "composed" not in why:
        return
    ((name, arguments),) = commands(line)
    if why:
        composed([a for a in arguments if a != "-m"], True if "-m" in arguments else None)
        return
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    given = arguments_of(name, arguments, list(OFFERED).index(line))
    result = invoke(name, *given, cwd=folder)
    assert result.code == 0 and "Traceback" not in result.err, (line, given, result)


# Commands in errors and messages of the sources.

OTHERS = {
    "charrnn benchmarks loop": "tests/benchmarks",
    "charrnn train -m": "of charrnn.train: a sweep, as in the README",
    "torchrun": "tests/integration/test_processes.py",
    "srun": "tests/integration/test_processes.py",
}
"""What messages name besides commands that are made from settings, and where it is run."""


def messages():
    """The strings of the sources that are no docstrings."""
    for file in sorted((ROOT / "charrnn").rglob("*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            for part in body if isinstance(body, list) else ():
                if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant):
                    part.value.value = None
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield file.relative_to(ROOT / "charrnn").as_posix(), node.value


def test_commands_in_messages_have_rows():
    named = re.compile(rf"charrnn (?:{'|'.join(COMMANDS)})\b(?: -m| loop)?|\b(?:torchrun|srun)\b")
    found = {text for _, message in messages() for text in named.findall(message)}
    plain = {f"charrnn {name}" for name in COMMANDS}
    assert found - plain == set(OTHERS)


def test_packages_that_messages_install_are_extras():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    known = set(extras["optional-dependencies"])
    found = {
        name
        for _, message in messages()
        for name in re.findall(r"pip install [\"']?charrnn\[(\w+)\]", message)
    }
    assert found and found <= known


def test_settings_with_values_in_messages_compose():
    """As in ``give trainer.max_epochs=-1``."""
    advice = re.compile(r"(?:give|by|leave out|use|try) ((?:\w+\.)*\w+=-?[a-z0-9]\w*)\b(?![\[{.])")
    found = {pair for _, message in messages() for pair in advice.findall(message)}
    assert found
    for pair in sorted(pair for pair in found if not pair.startswith("KEY=")):
        composed([pair], True if pair.startswith("sweep=") else None)
