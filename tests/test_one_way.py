"""One way to write a file: what is written appears whole, by ``checkpoint.files.atomic_write``."""

import ast

from helpers import ROOT

WRITES = ("write_text", "write_bytes", "copyfile", "copy2", "move", "touch", "savez", "tofile")
ALLOWED = {
    # Calls that write in another way, and why.
    "callbacks/metrics_csv.py": 1,  # appends a row, and takes back what was not written whole
    "callbacks/samples_file.py": 1,  # appends, as above
    "checkpoint/files.py": 2,  # atomic_write itself; the copy where links fail, exchanged whole
    "cli/errors.py": 1,  # /dev/null
    "cli/streams.py": 2,  # /dev/null
    "data/cache.py": 2,  # below a folder that is renamed when it is whole
    "gru/build.py": 1,  # below such a folder
    "gru/cuda/nvrtc.py": 1,  # beside the file, which it then replaces
    "training/distributed.py": 1,  # /dev/null
    "api/training_run.py": 1,  # from_python.write_text, which is atomic
}


def writes(call):
    """Whether a call opens a file to write, or writes one."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name in WRITES:
        return True
    if name != "open":
        return False
    modes = [*call.args[1:2], *(k.value for k in call.keywords if k.arg == "mode")]
    if ast.unparse(call.func) == "os.open":
        return "WR" in ast.unparse(modes[0])
    return any(not isinstance(m, ast.Constant) or set(m.value) & set("wax+") for m in modes)


def test_files_are_written_in_one_way():
    found = {}
    for file in sorted((ROOT / "charrnn").rglob("*.py")):
        name = file.relative_to(ROOT / "charrnn").as_posix()
        calls = [n for n in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(n, ast.Call)]
        if not name.startswith("benchmarks/") and (count := sum(map(writes, calls))):
            found[name] = count
    assert found == ALLOWED
