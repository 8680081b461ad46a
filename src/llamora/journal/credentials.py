"""The secrets that open an account: passphrases and recovery codes, their strength and their cost."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from logging import getLogger
from typing import ParamSpec, TypeVar

from llamora.errors import Problem
from llamora.persistence.local_db import LocalDB
from llamora.persistence.users import User
from llamora.settings import CryptoSettings
from llamora.vault.envelope import SealError
from llamora.vault.kdf import Argon2Params, BadParameters, calibrate
from llamora.vault.memory import wipe
from llamora.vault.recovery_code import WrongSecret
from llamora.vault.slots import PASSPHRASE, KeySlot, open_slot

logger = getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
MAX_PASSPHRASE_CHARACTERS = 1024
ZXCVBN_MAX_CHARACTERS = 72  # zxcvbn accepts no more, its time being quadratic in the length
# 3 is for zxcvbn "safely unguessable: moderate protection from offline slow-hash scenario"
MIN_STRENGTH_SCORE = 3
MAX_WAITING_KDF = 16  # strangers: some seconds of work, and 64 MiB or more for the one running
MAX_WAITING_STRENGTH = 4
BUSY_SECONDS = 5  # to wait when too many strangers are waiting already
STRENGTH_CODES = (
    "strength_seconds",
    "strength_hours",
    "strength_weeks",
    "strength_hard",
    "strength_very_hard",
)


class AccountError(Problem):
    """A request about an account that cannot be fulfilled."""


class WrongCredentials(AccountError):
    """A wrong name or secret.

    The error never says which of the two, so that names cannot be probed.
    """

    status = 403


@dataclass(slots=True, frozen=True)
class Strength:
    """The strength of a passphrase.

    `score` is that of zxcvbn, 0 to 4; `code` is the message code that describes it.
    """

    score: int
    code: str

    @property
    def is_sufficient(self) -> bool:
        """Return True if the passphrase can protect a file that is kept for decades."""
        return self.score >= MIN_STRENGTH_SCORE


class TooBusy(AccountError):
    """Too many are waiting; `params` holds the `seconds` after which to try again."""

    status = 503


is_known_client: ContextVar[bool] = ContextVar("is_known_client", default=False)
"""True while work is done for who is signed in, or uses a browser in which they once were."""


class _Lanes:
    """Run costly functions on threads: one at a time for strangers, and one for who is known.

    So nobody who is known waits for strangers. Of these only so many may wait; others are turned
    away.
    """

    def __init__(self, max_waiting: int) -> None:
        self._known, self._strangers = asyncio.Semaphore(1), asyncio.Semaphore(1)
        self._max_waiting = max_waiting
        self._stranger_count = 0

    async def run(self, function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Run a function in the lane of this client. Raises TooBusy."""
        if is_known_client.get():
            async with self._known:
                return await asyncio.to_thread(function, *arguments, **keywords)
        if self._stranger_count > self._max_waiting:
            raise TooBusy("too_busy", seconds=BUSY_SECONDS)
        self._stranger_count += 1
        try:
            async with self._strangers:
                return await asyncio.to_thread(function, *arguments, **keywords)
        finally:
            self._stranger_count -= 1


def _measure_strength(passphrase: str, name: str) -> Strength:
    from zxcvbn import zxcvbn  # takes 100 ms to import, needed for new passphrases only

    score = int(zxcvbn(passphrase[:ZXCVBN_MAX_CHARACTERS], user_inputs=[name, "llamora"])["score"])
    return Strength(score, STRENGTH_CODES[score])


def _has_bounded_cost(slot: KeySlot) -> bool:
    with suppress(BadParameters):
        return bool(slot.argon2)
    return False


class Credentials:
    """Try secrets on the slots of users, and know what a new slot must cost."""

    def __init__(self, db: LocalDB, settings: CryptoSettings) -> None:
        self._db = db
        self._crypto_settings = settings
        self._kdf_lanes = _Lanes(MAX_WAITING_KDF)
        self._strength_lanes = _Lanes(MAX_WAITING_STRENGTH)
        self._kdf_params_cache: Argon2Params | None = None

    async def validate_new(self, passphrase: str, name: str) -> None:
        """Raise AccountError for a passphrase too long or too weak to protect a journal."""
        if len(passphrase) > MAX_PASSPHRASE_CHARACTERS:
            raise AccountError("passphrase_too_long", most=MAX_PASSPHRASE_CHARACTERS)
        strength = await self.measure_strength(passphrase, name)
        if not strength.is_sufficient:
            raise AccountError(strength.code)

    async def measure_strength(self, passphrase: str, name: str) -> Strength:
        """Measure the strength of a passphrase, off the event loop. Raises TooBusy."""
        if not passphrase:
            return Strength(0, "strength_advice")
        return await self._strength_lanes.run(_measure_strength, passphrase, name)

    async def slots(self, user: User | None, kind: str) -> list[KeySlot]:
        """Return a user's slots of one kind, none without a user. Raises AccountError."""
        # An unknown name must cost the same two queries as a known one.
        slots = await self._db.users.get_slots(user.id if user else bytes(16), kind)
        usable = [slot for slot in slots if slot.kind != PASSPHRASE or _has_bounded_cost(slot)]
        if slots and not usable:
            raise AccountError("passphrase_slot_changed")
        return usable

    async def open_first(
        self, user_id: bytes, slots: Iterable[KeySlot], secret: str
    ) -> tuple[KeySlot, bytearray]:
        """Return the first of these slots that a secret opens, and the master key.

        Raises WrongSecret, and SealError when all of them are damaged.
        """
        errors: list[Exception] = []
        for slot in slots:
            try:
                return slot, await self.run_kdf(open_slot, user_id, slot, secret)
            except (WrongSecret, SealError) as error:
                errors.append(error)
        errors.sort(key=lambda error: not isinstance(error, WrongSecret))
        raise errors[0] if errors else WrongSecret("none of the slots opens with this")

    async def verify_passphrase(self, user: User, passphrase: str) -> KeySlot:
        """Return the slot that a passphrase opens. Raises WrongCredentials."""
        slots = await self.slots(user, PASSPHRASE)
        credentials_error = WrongCredentials("passphrase_wrong")
        if len(passphrase) > MAX_PASSPHRASE_CHARACTERS:
            raise credentials_error
        try:
            slot, master = await self.open_first(user.id, slots, passphrase)
        except WrongSecret:
            raise credentials_error from None
        wipe(master)
        return slot

    async def kdf_params(self) -> Argon2Params:
        """Return the parameters of this instance.

        They are calibrated once, for the first user.
        """
        if self._kdf_params_cache is None:
            text = await self._db.users.get_instance_fact("kdf")
            crypto_settings = self._crypto_settings
            floor = Argon2Params(
                crypto_settings.kdf_memory_kib,
                crypto_settings.kdf_time_cost,
                crypto_settings.kdf_parallelism,
            )
            if text is None:
                params = (
                    await self.run_kdf(calibrate, crypto_settings.kdf_target_ms, floor)
                    if crypto_settings.kdf_target_ms
                    else floor
                )
                text = await self._db.users.set_instance_fact("kdf", params.to_text())
            try:
                self._kdf_params_cache = Argon2Params.from_text(text)
            except (
                BadParameters
            ):  # a damaged row must neither lock users out nor lower the cost of new slots
                logger.error(
                    "the cost of the KDF in the journal's file is out of bounds; the floor is used"
                )
                self._kdf_params_cache = floor
        return self._kdf_params_cache

    async def run_kdf(
        self, function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs
    ) -> T:
        """Run a costly function of the vault on a thread. Raises TooBusy."""
        return await self._kdf_lanes.run(function, *arguments, **keywords)
