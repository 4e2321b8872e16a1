"""Lines of charrnn/ that make something durable or exclusive, found by a rule, and without them.

The rule: a call of a function of the system by which a file becomes durable or is exchanged whole,
of a lock, or of one of the project's own functions for these; a folder that must not exist before;
a comparison of checksums. A new line of these kinds is found without being listed.
"""

import ast
import re
from dataclasses import dataclass

from helpers import ROOT

SYSTEM = {"fsync", "replace", "rename", "link", "truncate", "testzip", "acquire", "FileLock"}
"""Functions of the system and of filelock; ``replace`` with one argument, or of ``os``."""
HELPERS = ("checkpoint/files.py", "runs/lock.py")
"""Files whose functions are such helpers; elsewhere they are known by their names."""
NAMED = re.compile(r"lock|claim|hold|owner|same_job|same_texts|rewind_")
CHECKSUMS = re.compile(r"sha256|crc32|checksum|digest|self_test")
WITHOUT = "benchmarks/"  # which keep nothing of the user's


@dataclass(frozen=True)
class Mutant:
    """One change of one line."""

    file: str
    """Below charrnn/."""
    line: int
    kind: str
    before: str
    source: str
    """The whole file, changed."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.kind}: {self.before}"


def sources() -> dict[str, str]:
    """The files that are looked through, by their names below charrnn/."""
    folder = ROOT / "charrnn"
    files = {f.relative_to(folder).as_posix(): f for f in sorted(folder.rglob("*.py"))}
    return {n: f.read_text("utf-8") for n, f in files.items() if not n.startswith(WITHOUT)}


def helpers(texts: dict[str, str]) -> set[str]:
    """The names of the project's own functions for these."""
    found = set()
    for name, text in texts.items():
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and (name in HELPERS or NAMED.search(node.name)):
                found.add(node.name)
    return found - {"is_alive", "is_running", "remove_scratch"}


def called(node: ast.AST) -> str:
    """The last name of what a call calls."""
    function = node.func if isinstance(node, ast.Call) else None
    return getattr(function, "attr", getattr(function, "id", ""))


def is_one(node: ast.AST, names: set[str]) -> bool:
    """Whether a call is of one of the functions."""
    name = called(node)
    if name == "replace":
        module = getattr(getattr(node.func, "value", None), "id", "")
        return module == "os" or (len(node.args) == 1 and not node.keywords)
    return name in SYSTEM | names


class Finder(ast.NodeVisitor):
    """Collects replacements of parts of a source: position, kind and new text."""

    def __init__(self, text: str, names: set[str]):
        self.text, self.names, self.found = text, names, []

    def add(self, node: ast.AST, kind: str, new: str) -> None:
        self.found.append((node, kind, new))

    def code(self, node: ast.AST) -> str:
        return ast.get_source_segment(self.text, node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call) and is_one(node.value, self.names):
            self.add(node, "not called", "pass")
        else:
            self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            call = item.context_expr
            if called(call) == "atomic_write":
                kept = [self.code(a) for a in call.args]
                kept += [f"{k.arg}={self.code(k.value)}" for k in call.keywords
                         if k.arg not in ("previous", None)]  # fmt: skip
                kept = kept if len(kept) > 1 else [*kept, '"wb"']
                self.add(call, "not atomic", f"open({', '.join(kept)})")
            elif is_one(call, self.names) or (isinstance(call, ast.Name) and NAMED.search(call.id)):
                code = "" if called(call) == "acquire" else self.code(call)  # a call would hold it
                self.add(call, "not held", f'__import__("contextlib").nullcontext({code})')
        for part in node.body:
            self.visit(part)

    def visit_Return(self, node: ast.Return) -> None:
        if called(node.value) == "hold":
            inner = self.code(node.value)
            self.add(node.value, "not held", f'__import__("contextlib").nullcontext({inner})')
        elif node.value:
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        if called(node) == "mkdir":
            given = {k.arg: k for k in node.keywords}
            value = given.get("exist_ok")
            if value is None or not (isinstance(value.value, ast.Constant) and value.value.value):
                kept = [self.code(a) for a in node.args]
                kept += [self.code(k) for name, k in given.items() if name != "exist_ok"]
                new = f"{self.code(node.func)}({', '.join([*kept, 'exist_ok=True'])})"
                self.add(node, "may exist", new)
        elif called(node) == "testzip":
            self.add(node, "not compared", "None")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if CHECKSUMS.search(self.code(node)) and isinstance(node.ops[0], ast.Eq | ast.NotEq):
            equal = isinstance(node.ops[0], ast.Eq)
            self.add(node, "not compared", f"({self.code(node)}, {equal})[1]")
        self.generic_visit(node)


def mutants() -> list[Mutant]:
    """All of them, in the order of files and lines."""
    texts = sources()
    names, made = helpers(texts), []
    for file, text in texts.items():
        finder = Finder(text, names)
        finder.visit(ast.parse(text))
        starts = [0]
        for line in text.encode().splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        for node, kind, new in finder.found:
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            data = text.encode()
            before = " ".join(data[begin:end].decode().split())
            source = (data[:begin] + new.encode() + data[end:]).decode()
            made.append(Mutant(file, node.lineno, kind, before, source))
    return made


if __name__ == "__main__":
    for mutant in mutants():
        compile(mutant.source, mutant.file, "exec")
        print(mutant)
    print(sorted(helpers(sources())))
