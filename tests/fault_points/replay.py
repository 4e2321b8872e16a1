"""Disks after a power cut: the log of a process's changes to files, replayed in part.

A model of a file system: files are inodes with their content and with what of it was flushed;
folders hold names, and the names that were flushed.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path

CREATE, WRITE, FSYNC, RENAME, LINK, UNLINK, MKDIR, RMDIR, TRUNCATE = range(1, 10)
HEAD = struct.Struct("5q")
PAGE = 4096


@dataclass
class Inode:
    """A file's content as written, and as flushed to the disk."""

    data: bytearray = field(default_factory=bytearray)
    flushed: bytes = b""

    @property
    def is_flushed(self) -> bool:
        return bytes(self.data) == self.flushed

    def cuts(self) -> list[int]:
        """Page boundaries at which data may end: none in what was flushed and appended to."""
        kept = len(self.flushed) if self.data.startswith(self.flushed) else 0
        return [cut for cut in range(0, len(self.data), PAGE) if cut >= kept]


def read_log(file: Path) -> list[tuple]:
    """The calls of a log: (kind, path, other path, offset, data)."""
    raw, at, calls = file.read_bytes(), 0, []
    while at + HEAD.size <= len(raw):
        kind, a, b, offset, size = HEAD.unpack_from(raw, at)
        at += HEAD.size
        path, other = raw[at : at + a], raw[at + a : at + a + b]
        data = raw[at + a + b : at + a + b + size]
        at += a + b + size
        calls.append((kind, path.decode(), other.decode(), offset, data))
    return calls


class Disk:
    """The files below a folder.

    Args:
        folder: whose present files are all flushed.
    """

    def __init__(self, folder: Path):
        self.root = str(folder)
        self.names: dict[str, Inode | None] = {self.root: None}  # None is a folder
        known: dict[int, Inode] = {}
        for path in sorted(folder.rglob("*")):
            if path.is_dir():
                self.names[str(path)] = None
                continue
            number = path.stat().st_ino
            if number not in known:
                content = path.read_bytes()
                known[number] = Inode(bytearray(content), content)
            self.names[str(path)] = known[number]
        self.flushed_names = dict(self.names)

    def apply(self, kind: int, path: str, other: str, offset: int, data: bytes) -> None:
        """Make a call of the log."""
        names = self.names
        if kind == CREATE:
            inode = names.setdefault(path, Inode())
            if offset and inode is not None:  # truncated
                inode.data = bytearray()
        elif kind == WRITE and (inode := names.get(path)) is not None:
            inode.data[len(inode.data) :] = bytes(max(0, offset - len(inode.data)))
            inode.data[offset : offset + len(data)] = data
        elif kind == TRUNCATE and (inode := names.get(path)) is not None:
            inode.data = inode.data[:offset] + bytes(max(0, offset - len(inode.data)))
        elif kind == FSYNC:
            if (inode := names.get(path)) is not None:
                inode.flushed = bytes(inode.data)
            else:
                self._flush_folder(path)
        elif kind == RENAME:
            if names.get(path) is names.get(other) is not None:
                return  # two names of one file: neither changes
            for old in [n for n in names if n == path or n.startswith(f"{path}/")]:
                names[other + old.removeprefix(path)] = names.pop(old)
        elif kind == LINK:
            names[other] = names[path]
        elif kind in (UNLINK, RMDIR):
            names.pop(path, None)
        elif kind == MKDIR:
            names[path] = None

    def _flush_folder(self, folder: str) -> None:
        def inside(name: str) -> bool:
            return name.rpartition("/")[0] == folder

        for name in [n for n in self.flushed_names if inside(n) and n not in self.names]:
            for below in [n for n in self.flushed_names if n == name or n.startswith(f"{name}/")]:
                del self.flushed_names[below]
        for name, inode in self.names.items():
            if inside(name):
                self.flushed_names[name] = inode

    def images(self):
        """The disks that a power cut at this moment may leave: {path: content or None}."""
        everything = {n: i if i is None else bytes(i.data) for n, i in self.names.items()}
        yield "all", everything
        unflushed = {n: i for n, i in self.names.items() if i is not None and not i.is_flushed}
        if unflushed:
            yield "flushed data", everything | {n: i.flushed for n, i in unflushed.items()}
            yield "zeroed data", everything | {n: zeroed(i) for n, i in unflushed.items()}
            for name, inode in unflushed.items():
                for cut in inode.cuts():
                    yield f"cut at {cut}", everything | {name: bytes(inode.data[:cut])}
        if self.flushed_names != self.names:
            found = {n: i if i is None else i.flushed for n, i in self.flushed_names.items()}
            yield "flushed names", {n: c for n, c in found.items() if self._has_parents(n)}
            # Names of files whose data was flushed are often on the disk before their folder's.
            yield (
                "flushed names, all data",
                {
                    n: i if i is None else bytes(i.data)
                    for n, i in self.flushed_names.items()
                    if self._has_parents(n)
                },
            )

    def _has_parents(self, name: str) -> bool:
        while name != self.root:
            name = name.rpartition("/")[0]
            if name not in self.flushed_names:
                return False
        return True


def zeroed(inode: Inode) -> bytes:
    """What was flushed, and zeros to the length of the rest."""
    kept = inode.flushed[: len(inode.data)]
    return kept + bytes(len(inode.data) - len(kept))


def write_image(image: dict, root: str, folder: Path) -> None:
    """Make the files of an image below another folder; those of equal content share no inode."""
    for name, content in sorted(image.items()):
        path = folder / name.removeprefix(root).lstrip("/")
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
