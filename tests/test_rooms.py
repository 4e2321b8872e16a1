"""The table of rooms: who imports whom, who knows Hydra and Lightning, and what an import costs."""

import ast
import subprocess
import sys

import pytest
from helpers import ROOT

import charrnn

HYDRA = {"hydra", "omegaconf"}
LIGHTNING = {"pytorch_lightning", "lightning", "lightning_fabric"}
TABLE = {
    "errors": set(),
    "data": set(),
    "gru": set(),
    "models": set(),
    "checkpoint": set(),
    "generation": set(),
    "evaluation": set(),
    "analysis": set(),
    "export": set(),
    "training": LIGHTNING,
    "callbacks": LIGHTNING,
    "runs": set(),
    "cli": HYDRA | LIGHTNING,
    "api": set(),
    "benchmarks": set(),
}
"""Each room, below those that it may import from, and the frameworks that it may know."""
ONE_FILE = {"charrnn/data/datamodule.py": LIGHTNING}
"""Files that may know more than their room."""
ROOMS = list(TABLE)
FILES = {file.relative_to(ROOT).as_posix(): file for file in (ROOT / "charrnn").rglob("*.py")}


def imports(file):
    """The dotted names of the modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import"
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= set(below if node.module == "charrnn" else [node.module])
    return names


def room(name):
    """The room of a file of charrnn/; None for what belongs to no room."""
    part = name.split("/")[1].removesuffix(".py")
    return None if part in ("__init__", "__main__") else part


@pytest.mark.parametrize("name", FILES)
def test_a_room_imports_only_from_rooms_above_it(name):
    if (here := room(name)) is None:
        return
    assert here in TABLE, f"{name} lies in no room of the table"
    for module in imports(FILES[name]):
        package, _, rest = module.partition(".")
        other = rest.split(".")[0]
        if package == "charrnn" and other in TABLE:
            assert ROOMS.index(other) <= ROOMS.index(here), f"{name} imports {module}"


@pytest.mark.parametrize("name", FILES)
def test_frameworks_are_known_where_the_table_says(name):
    here = room(name)
    allowed = TABLE.get(here, HYDRA | LIGHTNING) | ONE_FILE.get(name, set())
    found = {module.split(".")[0] for module in imports(FILES[name])} & (HYDRA | LIGHTNING)
    assert found <= allowed, f"{name} knows {found - allowed}"


@pytest.mark.parametrize("name", FILES)
def test_files_say_their_idea_and_are_short(name):
    text = FILES[name].read_text("utf-8")
    assert ast.get_docstring(ast.parse(text)), f"{name} says nothing of itself"
    assert text.count("\n") <= 300, f"{name} has over 300 lines"


def test_doors_are_thin():
    for script in ("train.py", "sample.py"):
        assert (ROOT / script).read_text("utf-8").count("\n") <= 15


def fresh(code, *arguments):
    """Run code in a process that has imported nothing; warnings are errors there too."""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_importing_charrnn_costs_nothing():
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
