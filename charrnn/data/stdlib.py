"""The default corpus: the source of the interpreter's own standard library."""

import hashlib
import sysconfig
from pathlib import Path

LIBRARIES = ("programs", "all")
EXCLUDED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
"""Folders that are no part of the library."""
NO_PROGRAMS = {"encodings", "idlelib", "lib2to3", "pydoc_data", "__phello__"}
"""Folders of tables, of help texts, and of programs that are mostly tables and key bindings."""
TABLES = {
    "html/__init__.py", "html/entities.py", "stringprep.py", "re/_casefix.py", "mimetypes.py",
    "locale.py", "keyword.py", "token.py", "symbol.py", "sre_constants.py", "re/_constants.py",
    "opcode.py", "stat.py", "this.py", "pickletools.py",
}  # fmt: skip
"""Files that are mostly a table, or generated."""


def stdlib_files(library: str = "programs") -> list[Path]:
    """Return .py files of Python's standard library, without tests and installed packages.

    Args:
        library: "programs" leaves out tables and generated files, and mixes packages, so that any
            part of the text is of the same kind. "all" is every file, sorted by path.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    names = [name for name in names if not EXCLUDED.intersection(name.split("/"))]
    if library == "programs":
        # In the order of a hash, which is the same everywhere, and stays where files are added.
        names = sorted(filter(is_program, names), key=name_hash)
    return [root / name for name in names]


def is_program(name: str) -> bool:
    """Whether a file of the library is no table."""
    folder = name.partition("/")[0]
    generated = folder.startswith("config-") or "_sysconfigdata" in name
    return not (folder in NO_PROGRAMS or name in TABLES or generated)


def name_hash(name: str) -> str:
    """A position in the corpus that does not depend on the package."""
    return hashlib.sha256(name.encode()).hexdigest()
