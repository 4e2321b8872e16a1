"""The default corpus: programs of all packages, in an order that mixes them."""

import re
import sysconfig
from pathlib import Path

from charrnn.data.stdlib import stdlib_files

ROOT = Path(sysconfig.get_paths()["stdlib"])
SIZE = 5_000_000
"""As conf/data/stdlib.yaml has it."""


def names(library):
    return [file.relative_to(ROOT).as_posix() for file in stdlib_files(library)]


def test_all_is_every_file_sorted():
    found = names("all")
    assert found == sorted(found) and len(found) > 100
    assert {"abc.py", "argparse.py", "json/__init__.py", "encodings/cp437.py"} <= set(found)
    parts = {part for name in found for part in name.split("/")}
    assert not parts & {"test", "tests", "site-packages", "dist-packages", "idle_test"}
    assert all(name.endswith(".py") for name in found)


def test_programs_leave_out_tables():
    found = names("programs")
    assert set(found) < set(names("all")) and len(found) == len(set(found))
    assert {"abc.py", "argparse.py", "json/__init__.py"} <= set(found)
    assert "html/entities.py" not in found
    assert not [name for name in found if name.startswith(("encodings/", "idlelib/", "lib2to3/"))]
    size = sum((ROOT / name).stat().st_size for name in found)
    assert size > SIZE
    for name in found:  # no table of numbers is left
        text = (ROOT / name).read_text("utf-8", "replace")
        assert len(text) < 4000 or len(re.findall(r"\d", text)) < 0.08 * len(text), name


def test_any_part_mixes_packages():
    """Also the last tenth of what is read, which validates."""
    position, parts = 0, [set() for _ in range(10)]
    for name in names("programs"):
        if position < SIZE:
            parts[position * 10 // SIZE].add(name.split("/")[0] if "/" in name else name[:2])
        position += (ROOT / name).stat().st_size
    assert all(len(part) >= 8 for part in parts), list(map(len, parts))
