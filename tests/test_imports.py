"""The layers: who knows Hydra, who knows Lightning, and what an import costs."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

import charrnn

HYDRA = {"hydra", "omegaconf"}
LIGHTNING = {"pytorch_lightning", "lightning", "lightning_fabric"}
FILES = [*ROOT.glob("*.py"), *(ROOT / "charrnn").rglob("*.py")]
NAMES = {file.relative_to(ROOT).as_posix(): file for file in FILES}


def imported(file):
    """The top packages that a file imports, wherever in it."""
    packages = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            packages.add(node.module.split(".")[0])
    return packages


def importing(packages):
    return {name for name, file in NAMES.items() if imported(file) & packages}


def test_only_the_entry_points_know_hydra():
    assert importing(HYDRA) == {"train.py", "sample.py", "charrnn/cli.py"}


def test_only_a_few_know_lightning():
    known = importing(LIGHTNING)
    callbacks = {name for name in known if name.startswith("charrnn/callbacks/")}
    assert callbacks and known - callbacks == {
        "charrnn/datamodule.py",
        "charrnn/task.py",
        "charrnn/loops.py",
        "charrnn/processes.py",  # of SLURM and torchrun: where the processes meet
        "charrnn/benchmarks/loop.py",  # which measures it
    }


def test_nothing_reaches_back():
    """Each file imports from the way of the data before it; none from the command line."""
    way = ["errors", "settings", "charset", "files", "corpus", "stream", "gru", "models",
           "ensemble", "decoding", "beam", "text", "sampler", "archive", "session", "results",
           "sweeps", "evaluation", "dynamic", "language_model", "checkpoint", "interactive",
           "export", "properties", "neurons", "schedulers", "scoring", "datamodule", "figures",
           "loops", "task", "signals", "processes", "callbacks", "provenance", "search",
           "messages", "checks", "cli", "benchmarks"]  # fmt: skip
    for name, file in NAMES.items():
        parts = name.removesuffix(".py").split("/")
        if parts[0] != "charrnn" or parts[1] == "__init__":
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "charrnn":
                of = node.module.split(".")[1:2] or [alias.name for alias in node.names]
                for other in set(of) - {"__version__"}:
                    assert way.index(other) <= way.index(parts[1]), f"{name} imports {other}"


def fresh(code, *arguments):
    """Run code in a process that has imported nothing; warnings are errors there too."""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_import_alone_costs_nothing():
    out = fresh("import sys, charrnn; print(*sys.modules)").split()
    assert not {"torch", "numpy", "hydra", "pytorch_lightning"} & set(out)


def test_load_needs_neither_lightning_nor_hydra(trained):
    code = """
import sys, charrnn
model = charrnn.load(sys.argv[1])
assert len(model.generate("def ", length=20, seed=1)) == 24
assert model.score("def f").shape == (4,)
assert model.activations("def f").shape == (2, 8, 5)
print(*sys.modules)
"""
    packages = {name.split(".")[0] for name in fresh(code, trained).split()}
    assert "torch" in packages
    assert not packages & (HYDRA | LIGHTNING)


def test_public_names():
    assert set(charrnn.__all__) <= set(dir(charrnn))
    for name in charrnn.__all__:
        assert getattr(charrnn, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        charrnn.lode  # noqa: B018
