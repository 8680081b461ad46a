"""Where keys lie while they are held: locked where the system allows it, and overwritten afterwards."""

import gc
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llamora.persistence.schema import ENTRY
from llamora.vault import memory
from llamora.vault.key_renewal import seal_new_keys
from llamora.vault.keys import KeyringClosed, open_keyring
from llamora.vault.memory import KeyMemory, wipe

ANNA = b"a" * 16
linux = pytest.mark.skipif(sys.platform != "linux", reason="it is read from /proc")


def flags_of(address: int) -> set[str]:
    """What Linux says of the page at an address (proc(5), VmFlags)."""
    within = False
    for line in Path("/proc/self/smaps").read_text(encoding="ascii").splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            within = int(found[1], 16) <= address < int(found[2], 16)
        elif within and line.startswith("VmFlags:"):
            return set(line.split()[1:])
    return set()


def address_of(view: memoryview) -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(view))


@linux
def test_pages_are_locked_and_left_out_of_dumps() -> None:
    held = KeyMemory()
    flags = flags_of(address_of(held.keep(b"k" * 32)))
    assert "dd" in flags
    assert ("lo" in flags) == (memory.memory_lock() == "locked")


def test_places_never_overlap_over_many_pages() -> None:
    held = KeyMemory()
    kept = [held.keep(number.to_bytes(2, "big") * 16) for number in range(400)]
    assert [bytes(each[:2]) for each in kept] == [
        number.to_bytes(2, "big") for number in range(400)
    ]
    held.clear()
    assert not any(any(each) for each in kept)


def test_what_nothing_refers_to_is_overwritten() -> None:
    held = KeyMemory()
    kept = held.keep(b"k" * 32)
    del held
    gc.collect()
    assert not any(kept)


def test_keys_are_in_there_and_go_with_the_lock() -> None:
    master = bytearray(os.urandom(32))
    ring = open_keyring(ANNA, master, seal_new_keys(ANNA, master))
    ring.seal(ENTRY, "entries", "sealed", b"1", 1, b"text")
    ring.blind("day", b"")
    pages = [bytes(page) for page in ring._memory._pages]  # pyright: ignore[reportPrivateUsage]
    assert pages[0][:32] == master
    assert sum(any(pages[0][at : at + 32]) for at in range(0, 512, 32)) == 5
    ring.close()
    assert not any(any(bytes(page)) for page in ring._memory._pages)  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(KeyringClosed):
        ring.blind("new", b"")
    assert not any(any(bytes(page)) for page in ring._memory._pages)  # pyright: ignore[reportPrivateUsage]


def test_it_goes_on_where_nothing_may_be_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_lock_function", lambda: lambda address, size: False)
    assert memory.memory_lock() == "not locked"
    assert bytes(KeyMemory().keep(b"k" * 32)) == b"k" * 32
    monkeypatch.setattr(memory, "_lock_function", lambda: None)
    assert memory.memory_lock() == "not locked"


def test_wiping() -> None:
    key = bytearray(b"k" * 32)
    wipe(key, memoryview(bytearray(3)))
    assert key == bytes(32)


@linux
def test_a_process_leaves_no_core_and_lets_nobody_look() -> None:
    code = (
        "import ctypes, resource; from llamora.vault.memory import disable_core_dumps; disable_core_dumps();"
        "print(resource.getrlimit(resource.RLIMIT_CORE)[0], ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert said.split() == ["0", "0"]
