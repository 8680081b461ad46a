"""A disk that loses what was not brought to it, and one that fails: what disk.c records and refuses.

`Disk` reckons from a log what a power cut at any moment may leave: what was synced is there; of the rest any part may
be, in pieces of 512 or 4,096 bytes and in any order. A name is there once its folder was synced, whatever was done to
the file; the names in one folder come to the disk in the order in which they were given.
"""

import mmap
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

SOURCE = Path(__file__).with_name("disk.c")
HEAD = struct.Struct("<cQQI")
How = Literal["nothing", "some", "all"]
"""What of the unsynced survives a cut."""


class NoShim(Exception):
    """Why there is no such disk on this machine, in a sentence."""


def build(folder: Path) -> Path:
    """Compile disk.c into `folder`. Raises NoShim."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux":
        raise NoShim("The disk that loses and fails is preloaded, which is done on Linux only.")
    if compiler is None:
        raise NoShim("There is no C compiler on this machine.")
    library = folder / "disk.so"
    options = ["-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"]
    ran = subprocess.run([compiler, *options], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise NoShim(f"The C compiler did not take disk.c: {ran.stderr[-500:]}")
    return library


@dataclass(frozen=True, slots=True)
class Watched:
    """A folder whose disk is watched, and how a process is told so."""

    library: Path
    root: Path
    log: Path | None = None
    faults: Path | None = None

    @property
    def env(self) -> dict[str, str]:
        """What to add to the environment of a process."""
        env = {"LD_PRELOAD": str(self.library), "TORTURE_ROOT": str(self.root.resolve())}
        if self.log is not None:
            env["TORTURE_LOG"] = str(self.log)
        if self.faults is not None:
            env["TORTURE_FAULTS"] = str(self.faults)
        return env


# -- a disk that fails -----------------------------------------------------------------------------------

WRITE, CREATE, SYNC, SIZE, NAME = 1, 2, 4, 8, 16
ONCE, FROM_THEN_ON = 1, 2


class Faults:
    """The switch of a disk that fails: six 32-bit numbers in a file that the preloaded library maps."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._numbers = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.path = path

    def arm(self, error: int, at: int, *, mode: int, kinds: int) -> None:
        """Let the `at`-th change of these kinds from now on fail with `error`, once or from then on."""
        self._put(0, error, at, 0, 0, kinds)
        self._put(mode, error, at, 0, 0, kinds)

    def disarm(self) -> int:
        """Let everything succeed again; how many changes had failed."""
        hits = struct.unpack_from("<6i", self._numbers)[4]
        self._put(0, 0, 0, 0, 0, 0)
        return int(hits)

    def _put(self, *numbers: int) -> None:
        struct.pack_into("<6i", self._numbers, 0, *numbers)


# -- a disk that loses -----------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class File:
    """A file: what is on the disk of it, and what is on its way there: (offset, bytes) or (size, None)."""

    stored: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list["tuple[int, bytes | None]"])

    def sync(self) -> None:
        """All of it is on the disk."""
        for change in self.pending:
            _apply(self.stored, *change)
        self.pending.clear()

    def left(self, how: How, rng: random.Random, piece: int) -> bytearray:
        """What a cut leaves."""
        content = bytearray(self.stored)
        if how == "nothing":
            return content
        share = 1.0 if how == "all" else rng.choice((0.1, 0.5, 0.9))
        for at, written in self.pending:
            if written is None:
                if rng.random() < share:
                    _apply(content, at, None)
                continue
            start = at
            while start < at + len(written):
                end = min(at + len(written), (start // piece + 1) * piece)
                if rng.random() < share:
                    _apply(content, start, written[start - at : end - at])
                elif rng.random() < 0.5 and len(content) < end:
                    content.extend(bytes(end - len(content)))  # the size came to the disk and the bytes did not
                start = end
        return content


def _apply(content: bytearray, at: int, written: bytes | None) -> None:
    if len(content) < at:
        content.extend(bytes(at - len(content)))
    if written is None:
        del content[at:]
    else:
        content[at : at + len(written)] = written


@dataclass(slots=True, eq=False)
class Folder:
    """A folder: the names in it that are on the disk, and changes on their way: {name: node, or None for gone}."""

    stored: "dict[str, File | Folder]" = field(default_factory=dict[str, "File | Folder"])
    pending: "list[dict[str, File | Folder | None]]" = field(default_factory=list["dict[str, File | Folder | None]"])

    def sync(self) -> None:
        """All names are on the disk."""
        self.stored = self.left(len(self.pending))
        self.pending.clear()

    def left(self, count: int) -> "dict[str, File | Folder]":
        """The names once the first `count` changes have arrived."""
        names: dict[str, File | Folder | None] = dict(self.stored)
        for change in self.pending[:count]:
            names |= change
        return {name: node for name, node in names.items() if node is not None}


class Disk:
    """Goes through a log, and makes what a cut would leave at any place of it."""

    def __init__(self, root: Path) -> None:
        """`root` as it stands now is on the disk."""
        self.root = root.resolve()
        self._names: dict[str, File | Folder] = {}
        self._inodes: dict[int, File | Folder] = {}
        self._place = 0
        self._know(self.root)

    def _know(self, path: Path) -> File | Folder:
        node: File | Folder = Folder() if path.is_dir() else File(bytearray(path.read_bytes()))
        self._names[str(path)] = self._inodes[path.stat().st_ino] = node
        if isinstance(node, Folder):
            node.stored = {child.name: self._know(child) for child in path.iterdir()}
        return node

    def forward(self, log: bytes, until: int) -> None:
        """Take in the log up to the place `until`; a record that ends after it has not happened."""
        for end, kind, inode, number, content in records(log, self._place):
            if end > until:
                return
            self._place = end
            self._take(kind, inode, number, content)

    def _take(self, kind: str, inode: int, number: int, content: bytes) -> None:
        if kind in "CM":
            name = os.fsdecode(content)
            node = self._inodes[inode] = File() if kind == "C" else Folder()
            self._change({name: node})
        elif kind in "WT":
            node = self._inodes[inode]
            assert isinstance(node, File)
            node.pending.append((number, content if kind == "W" else None))
        elif kind == "S":
            self._inodes[inode].sync()
        elif kind in "UD":
            self._change({os.fsdecode(content): None})
        elif kind in "RL":
            one, other = (os.fsdecode(name) for name in content.split(b"\0"))
            node = self._names[one]
            assert Path(one).parent == Path(other).parent, "a name is moved between folders"
            self._change({other: node} if kind == "L" else {one: None, other: node})
        else:
            raise AssertionError(f"a change that is not followed: {content!r}")

    def _change(self, names: "dict[str, File | Folder | None]") -> None:
        parent = self._names[str(Path(next(iter(names))).parent)]
        assert isinstance(parent, Folder)
        parent.pending.append({Path(name).name: node for name, node in names.items()})
        for name, node in names.items():
            if node is None:
                del self._names[name]
            else:
                self._names[name] = node

    def leave(self, target: Path, how: How, rng: random.Random) -> None:
        """Put into `target` what a cut at this moment leaves."""
        root = self._names[str(self.root)]
        assert isinstance(root, Folder)
        self._leave(root, target, how, rng, rng.choice((512, 4096)))

    def _leave(self, folder: Folder, target: Path, how: How, rng: random.Random, piece: int) -> None:
        target.mkdir()
        most = len(folder.pending)
        count = {"nothing": 0, "all": most, "some": rng.randint(0, most)}[how]
        for name, node in folder.left(count).items():
            if isinstance(node, Folder):
                self._leave(node, target / name, how, rng, piece)
            else:
                (target / name).write_bytes(node.left(how, rng, piece))


def records(log: bytes, start: int = 0) -> Iterator[tuple[int, str, int, int, bytes]]:
    """(where it ends, kind, inode, offset or size, bytes) of each whole record."""
    at = start
    while at + HEAD.size <= len(log):
        kind, inode, number, length = HEAD.unpack_from(log, at)
        at += HEAD.size + length
        if at > len(log):
            return
        yield at, kind.decode(), inode, number, log[at - length : at]
