"""Simulate a disk that loses what was not brought to it, and one that fails: what disk.c records and refuses.

`SimulatedDisk` computes from a log what a power cut at any moment may leave: what was synced is there; of the rest any
part may be, in pieces of 512 or 4,096 bytes and in any order. A name is there once its folder was synced, whatever was
done to the file; the names in one folder come to the disk in the order in which they were given.
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
from typing import Any, Literal, TypeAlias

from scripts.command import Unavailable

SOURCE = Path(__file__).with_name("disk.c")
RECORD_HEADER = struct.Struct("<cQQI")
UnsyncedLoss = Literal["nothing", "some", "all"]
"""What of the unsynced survives a cut."""
Node: TypeAlias = "DiskFile | DiskFolder"
NameChange: TypeAlias = "dict[str, Node | None]"
"""What names stand for now; None for gone."""


class ShimUnavailable(Unavailable):
    """Say why there is no such disk on this machine."""


def build_shim(folder: Path) -> Path:
    """Compile disk.c into `folder`. Raises ShimUnavailable."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux":
        raise ShimUnavailable(
            "The disk that loses and fails is preloaded, which is done on Linux only."
        )
    if compiler is None:
        raise ShimUnavailable("There is no C compiler on this machine.")
    library = folder / "disk.so"
    options = ["-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"]
    process = subprocess.run([compiler, *options], capture_output=True, text=True, check=False)
    if process.returncode:
        raise ShimUnavailable(f"The C compiler did not take disk.c: {process.stderr[-500:]}")
    return library


@dataclass(frozen=True, slots=True)
class WatchedFolder:
    """Name a folder whose disk is watched, and tell a process so."""

    library: Path
    root: Path
    log: Path | None = None
    faults: Path | None = None

    @property
    def env(self) -> dict[str, str]:
        """Return what to add to the environment of a process."""
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
    """Switch a disk that fails: six 32-bit numbers in a file that the preloaded library maps."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._shared_numbers = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.path = path

    def arm(self, error: int, change_number: int, *, mode: int, kinds: int) -> None:
        """Let the `change_number`-th change of these kinds from now on fail with `error`, once or from then on."""
        self._put(0, error, change_number, 0, 0, kinds)
        self._put(mode, error, change_number, 0, 0, kinds)

    def disarm(self) -> int:
        """Let everything succeed again; return how many changes had failed."""
        hits = struct.unpack_from("<6i", self._shared_numbers)[4]
        self._put(0, 0, 0, 0, 0, 0)
        return int(hits)

    def _put(self, *numbers: int) -> None:
        struct.pack_into("<6i", self._shared_numbers, 0, *numbers)


# -- a disk that loses -----------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class DiskFile:
    """Hold what is on the disk of a file, and what is on its way there: (offset, bytes) or (size, None)."""

    stored: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list[Any])

    def sync(self) -> None:
        """Bring all of it to the disk."""
        for change in self.pending:
            _apply(self.stored, *change)
        self.pending.clear()

    def after_cut(self, loss: UnsyncedLoss, rng: random.Random, block_size: int) -> bytearray:
        """Return what a cut leaves."""
        content = bytearray(self.stored)
        if loss == "nothing":
            return content
        share = 1.0 if loss == "all" else rng.choice((0.1, 0.5, 0.9))
        for offset, content_written in self.pending:
            if content_written is None:
                if rng.random() < share:
                    _apply(content, offset, None)
                continue
            start = offset
            while start < offset + len(content_written):
                end = min(offset + len(content_written), (start // block_size + 1) * block_size)
                if rng.random() < share:
                    _apply(content, start, content_written[start - offset : end - offset])
                elif rng.random() < 0.5 and len(content) < end:
                    # The size came to the disk and the bytes did not.
                    content.extend(bytes(end - len(content)))
                start = end
        return content


def _apply(content: bytearray, offset: int, content_written: bytes | None) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if content_written is None:
        del content[offset:]
    else:
        content[offset : offset + len(content_written)] = content_written


@dataclass(slots=True, eq=False)
class DiskFolder:
    """Hold the names in a folder that are on the disk, and changes on their way."""

    stored: dict[str, Node] = field(default_factory=dict[str, Any])
    pending: list[NameChange] = field(default_factory=list[Any])

    def sync(self) -> None:
        """Bring all names to the disk."""
        self.stored = self.after_changes(len(self.pending))
        self.pending.clear()

    def after_changes(self, count: int) -> dict[str, Node]:
        """Return the names once the first `count` changes have arrived."""
        nodes: NameChange = dict(self.stored)
        for change in self.pending[:count]:
            nodes |= change
        return {name: node for name, node in nodes.items() if node is not None}


class SimulatedDisk:
    """Go through a log, and make what a cut would leave at any place of it."""

    def __init__(self, root: Path) -> None:
        """Take `root` as it stands now for what is on the disk."""
        self.root = root.resolve()
        self._nodes_by_path: dict[str, Node] = {}
        self._nodes_by_inode: dict[int, Node] = {}
        self._log_offset = 0
        self._add_existing(self.root)

    def _add_existing(self, path: Path) -> Node:
        is_folder = path.is_dir()
        node: Node = DiskFolder() if is_folder else DiskFile(bytearray(path.read_bytes()))
        self._nodes_by_path[str(path)] = self._nodes_by_inode[path.stat().st_ino] = node
        if isinstance(node, DiskFolder):
            node.stored = {child.name: self._add_existing(child) for child in path.iterdir()}
        return node

    def replay(self, log: bytes, log_offset: int) -> None:
        """Take in the log up to a place; a record that ends after it has not happened."""
        for end, kind, inode, number, content in read_records(log, self._log_offset):
            if end > log_offset:
                return
            self._log_offset = end
            self._apply_record(kind, inode, number, content)

    def _apply_record(self, kind: str, inode: int, number: int, content: bytes) -> None:
        if kind in "CM":
            name = os.fsdecode(content)
            node = self._nodes_by_inode[inode] = DiskFile() if kind == "C" else DiskFolder()
            self._change_names({name: node})
        elif kind in "WT":
            node = self._nodes_by_inode[inode]
            assert isinstance(node, DiskFile)
            node.pending.append((number, content if kind == "W" else None))
        elif kind == "S":
            self._nodes_by_inode[inode].sync()
        elif kind in "UD":
            self._change_names({os.fsdecode(content): None})
        elif kind in "RL":
            old_name, new_name = (os.fsdecode(name) for name in content.split(b"\0"))
            node = self._nodes_by_path[old_name]
            assert Path(old_name).parent == Path(new_name).parent, "a name is moved between folders"
            self._change_names(
                {new_name: node} if kind == "L" else {old_name: None, new_name: node}
            )
        else:
            raise AssertionError(f"a change that is not followed: {content!r}")

    def _change_names(self, names: NameChange) -> None:
        parent = self._nodes_by_path[str(Path(next(iter(names))).parent)]
        assert isinstance(parent, DiskFolder)
        parent.pending.append({Path(name).name: node for name, node in names.items()})
        for name, node in names.items():
            if node is None:
                del self._nodes_by_path[name]
            else:
                self._nodes_by_path[name] = node

    def write_after_cut(self, target: Path, loss: UnsyncedLoss, rng: random.Random) -> None:
        """Put into `target` what a cut at this moment leaves."""
        root = self._nodes_by_path[str(self.root)]
        assert isinstance(root, DiskFolder)
        self._write_folder(root, target, loss, rng, rng.choice((512, 4096)))

    def _write_folder(
        self, folder: DiskFolder, target: Path, loss: UnsyncedLoss, rng: random.Random, size: int
    ) -> None:
        target.mkdir()
        pending_count = len(folder.pending)
        count = {"nothing": 0, "all": pending_count, "some": rng.randint(0, pending_count)}[loss]
        for name, node in folder.after_changes(count).items():
            if isinstance(node, DiskFolder):
                self._write_folder(node, target / name, loss, rng, size)
            else:
                (target / name).write_bytes(node.after_cut(loss, rng, size))


def read_records(log: bytes, start: int = 0) -> Iterator[tuple[int, str, int, int, bytes]]:
    """Yield (where it ends, kind, inode, offset or size, bytes) of each whole record."""
    offset = start
    while offset + RECORD_HEADER.size <= len(log):
        kind, inode, number, length = RECORD_HEADER.unpack_from(log, offset)
        offset += RECORD_HEADER.size + length
        if offset > len(log):
            return
        yield offset, kind.decode(), inode, number, log[offset - length : offset]
