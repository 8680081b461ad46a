"""Argon2id: its cost, its bounds and its calibration.

A derivation blocks for hundreds of milliseconds with the GIL released: call it on a thread.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from argon2 import low_level

from llamora.vault.envelope import KEY_BYTES, VaultError
from llamora.vault.memory import Key


class BadParameters(VaultError):
    """KDF parameters that cannot be read, or that lie outside the bounds."""


class KdfUnavailable(VaultError):
    """The machine did not give the KDF its memory. Says nothing about the passphrase."""

    def __init__(self, mebibytes: int) -> None:
        super().__init__("not enough free memory")
        self.mebibytes = mebibytes


# RFC 9106 §4, the second recommended option, is the floor.
_FLOOR = (65536, 3, 4)
# A row that a thief edited must not make the server allocate 64 GiB or compute for an hour: each
# parameter has a ceiling, and so has memory x passes, which is what the time is proportional to.
_CEILING = (1024 * 1024, 32, 16)
_MAX_KIB_PASSES = 8 * 1024 * 1024
# Calibration stops adding memory here and adds passes instead: a household's small machine has to
# find this much again at every sign-in, or its owner is locked out.
_CALIBRATED_MEMORY_KIB = 256 * 1024
_MEMORY_STEP_KIB = 16 * 1024


@dataclass(frozen=True, slots=True)
class Argon2Params:
    """The cost of Argon2id: memory in KiB, passes, lanes.

    Memory is 65,536 .. 1,048,576 KiB, passes 3 .. 32, lanes 4 .. 16, and memory x passes at most 8
    GiB; anything else raises :class:`BadParameters`. The floor is RFC 9106 §4's option for machines
    with little memory.
    """

    memory_kib: int
    time_cost: int
    parallelism: int

    def __post_init__(self) -> None:
        values = (self.memory_kib, self.time_cost, self.parallelism)
        for value, low, high, name in zip(
            values, _FLOOR, _CEILING, ("memory", "passes", "lanes"), strict=True
        ):
            if not low <= value <= high:
                raise BadParameters(f"Argon2id {name} must be {low} to {high}, not {value}")
        if self.work > _MAX_KIB_PASSES:
            raise BadParameters("Argon2id memory times passes must be at most 8 GiB")

    @property
    def work(self) -> int:
        """Return memory x passes in KiB, to which the time of a guess is proportional."""
        return self.memory_kib * self.time_cost

    def to_text(self) -> str:
        """Return `m=65536,t=3,p=4`: the form kept beside a slot and bound into its seal."""
        return f"m={self.memory_kib},t={self.time_cost},p={self.parallelism}"

    @classmethod
    def from_text(cls, text: str) -> "Argon2Params":
        """Read exactly what :meth:`to_text` writes. Raise :class:`BadParameters`."""
        # Ten digits hold every allowed value and keep int() cheap on a hostile row.
        parts = text[:64].split(",")
        if len(parts) == 3 and all(
            part[:2] == name and part[2:].isascii() and part[2:].isdigit() and len(part) <= 12
            for part, name in zip(parts, ("m=", "t=", "p="), strict=True)
        ):
            params = cls(int(parts[0][2:]), int(parts[1][2:]), int(parts[2][2:]))
            if params.to_text() == text:
                return params
        raise BadParameters("Argon2id parameters must read like m=65536,t=3,p=4")


def argon2id(secret: Key, salt: bytes, params: Argon2Params) -> bytearray:
    """Derive a key of 32 bytes, which the caller wipes. Raise :class:`KdfUnavailable`."""
    key = bytearray(KEY_BYTES)
    # What low_level.hash_secret_raw does, without copies of the secret that nobody overwrites.
    argon2: Any = low_level
    code = argon2.lib.argon2_hash(
        *(params.time_cost, params.memory_kib, params.parallelism),
        *(argon2.ffi.from_buffer(secret), len(secret), argon2.ffi.from_buffer(salt), len(salt)),
        *(argon2.ffi.from_buffer(key), KEY_BYTES, argon2.ffi.NULL, 0),
        *(argon2.Type.ID.value, argon2.ARGON2_VERSION),
    )
    if code != argon2.lib.ARGON2_OK:
        raise KdfUnavailable(params.memory_kib // 1024)
    return key


def burn_kdf(params: Argon2Params) -> None:
    """Spend what opening a slot with these parameters costs, for a name that no user has."""
    argon2id(bytes(16), bytes(KEY_BYTES), params)


def kdf_milliseconds(params: Argon2Params) -> float:
    """Measure one key derivation on this machine, in milliseconds."""
    start = time.perf_counter()
    burn_kdf(params)
    return (time.perf_counter() - start) * 1000


def calibrate(
    target_ms: int,
    floor: Argon2Params,
    *,
    _measure: Callable[[Argon2Params], float] = kdf_milliseconds,
) -> Argon2Params:
    """Return parameters that take about `target_ms` here, never below `floor`.

    A target of 0 gives `floor` itself. Memory is raised first, passes after: per millisecond of
    ours, memory costs an attacker's hardware area as well as time, and RFC 9106 §4 likewise settles
    memory before passes. Memory stops at 256 MiB so that the parameters still work on a busy small
    machine. A result that measures over 4/3 of the target is stepped down again.
    """
    if target_ms <= 0:
        return floor
    # The quietest of three runs: a machine that starts up is noisy, and noise only adds.
    floor_ms = min(_measure(floor) for _ in range(3))
    scale = target_ms / max(floor_ms, 0.001)
    for _ in range(4):
        candidate = _scaled(floor, scale)
        if candidate == floor:
            break
        try:
            measured = _measure(candidate)
        except KdfUnavailable:
            measured = target_ms * 2.0
        if measured <= target_ms * 4 / 3:
            return candidate
        scale *= target_ms / measured
    return floor


def _scaled(floor: Argon2Params, scale: float) -> Argon2Params:
    """Return `floor` with memory x passes grown by `scale`, rounded down, within the bounds."""
    budget = floor.memory_kib * floor.time_cost * max(scale, 1.0)
    wanted = int(budget / floor.time_cost) // _MEMORY_STEP_KIB * _MEMORY_STEP_KIB
    memory = max(floor.memory_kib, min(wanted, _CALIBRATED_MEMORY_KIB))
    passes = min(int(budget / memory), _CEILING[1], _MAX_KIB_PASSES // memory)
    return Argon2Params(memory, max(floor.time_cost, passes), floor.parallelism)
