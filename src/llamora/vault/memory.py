"""Memory for keys: out of swap and core dumps where the system allows, overwritten when released.

What Python cannot do for them is said in docs/encryption.md.
"""

import ctypes
import mmap
import sys
import threading
import weakref
from contextlib import suppress
from functools import cache

Key = bytes | bytearray | memoryview
"""Key bytes as functions take them. Keys are returned as a bytearray, for the caller to `wipe`."""

Buffer = bytearray | memoryview

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def wipe(*buffers: Buffer) -> None:
    """Overwrite with zeros."""
    for buffer in buffers:
        buffer[:] = bytes(len(buffer))


class KeyMemory:
    """Pages that hold the keys of one keyring: locked and out of core dumps where possible.

    Overwritten by `clear`, when nothing refers to it any more, and when the process ends in order.
    A place is never given out twice. Safe to use from several threads.
    """

    __slots__ = ("__weakref__", "_guard", "_pages", "_used")

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._pages: list[mmap.mmap] = []
        self._used = mmap.PAGESIZE
        weakref.finalize(self, _clear, self._pages)

    def place(self, size: int) -> memoryview:
        """Return `size` zero bytes, at most a page, to be filled with a key."""
        with self._guard:
            if self._used + size > mmap.PAGESIZE:
                page = _new_page()
                _protect(page)
                self._pages.append(page)
                self._used = 0
            start, self._used = self._used, self._used + size
            return memoryview(self._pages[-1])[start : self._used]

    def keep(self, key: Key) -> memoryview:
        """Return a copy of `key` in this memory."""
        kept = self.place(len(key))
        kept[:] = key
        return kept

    def clear(self) -> None:
        """Overwrite everything in here with zeros."""
        _clear(self._pages)


def memory_lock() -> str:
    """Return "locked" when keys are kept out of swap, or "not locked" where that is refused."""
    return "locked" if _protect(_new_page()) else "not locked"


def disable_core_dumps() -> None:
    """Switch off core dumps and, where possible, unprivileged reading of this process's memory."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _new_page() -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, mmap.PAGESIZE)
    return mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _clear(pages: list[mmap.mmap]) -> None:
    for page in pages:
        page[:] = bytes(len(page))


def _protect(page: mmap.mmap) -> bool:
    """Keep a page out of core dumps and swap; return True if it is locked.

    The lock goes when the page does.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            page.madvise(mmap.MADV_DONTDUMP)
    lock = _lock_function()
    if lock is None:
        return False
    pointer = ctypes.c_char.from_buffer(page)
    return bool(lock(ctypes.addressof(pointer), len(page)))


@cache
def _lock_function() -> "_Lock | None":
    with suppress(OSError, AttributeError):
        return _Lock()
    return None


class _Lock:
    """mlock of POSIX, VirtualLock of Windows: locks bytes from an address, and tells if it did."""

    def __init__(self) -> None:
        self._is_posix = sys.platform != "win32"
        if sys.platform == "win32":
            self._call = ctypes.WinDLL("kernel32").VirtualLock
        else:
            self._call = ctypes.CDLL(None).mlock
        self._call.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        self._call.restype = ctypes.c_int

    def __call__(self, address: int, size: int) -> bool:
        return (self._call(address, size) == 0) == self._is_posix
