"""Files that are there whole or not at all, readable by their owner only."""

import errno
import os
import secrets
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from glob import escape
from pathlib import Path
from typing import BinaryIO

from llamora.persistence.connection import (
    DiskFull,
    StorageError,
    fsync_folder,
    os_reason,
    prepare_file,
)


@contextmanager
def open_atomic(
    target: Path, name_guard: AbstractContextManager[None] | None = None
) -> Generator[BinaryIO]:
    """Open a file that appears at `target` only once the block is done and it is on the disk.

    It gets its name inside `name_guard`.
    """
    temp_path = _create_temp_file(target)
    try:
        with temp_path.open("r+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with name_guard or nullcontext():
            temp_path.replace(target)
            fsync_folder(target.parent)  # the name too must be on the disk
    except OSError as error:
        kind = DiskFull if error.errno == errno.ENOSPC else StorageError
        reason = os_reason(error)
        raise kind("file_unwritable", file=str(target), reason=reason) from None
    finally:
        _remove_temp_file(temp_path)


def write_atomically(target: Path, write_file: Callable[[Path], None]) -> None:
    """Call `write_file` on a temporary file and move it to `target` once it is on the disk.

    Raise StorageError, and what `write_file` raises.
    """
    with open_atomic(target) as file:
        write_file(Path(file.name))


def _create_temp_file(target: Path) -> Path:
    temp_path = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        prepare_file(temp_path)
    except StorageError:
        _remove_temp_file(temp_path)
        raise
    return temp_path


def _remove_temp_file(temp_path: Path) -> None:
    """Remove an incomplete file and what SQLite put beside it, ignoring what the disk refuses."""
    with suppress(OSError):
        for leftover in temp_path.parent.glob(f"{escape(temp_path.name)}*"):
            leftover.unlink(missing_ok=True)
