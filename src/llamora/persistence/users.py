"""Writers, their key slots and data keys, and the few facts of the whole instance."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from logging import getLogger
from typing import Literal, cast

from llamora.persistence.connection import Connections, NotFound, StaleRevision, StorageError, Transaction
from llamora.persistence.schema import PROFILES
from llamora.text import normal_form
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring, SealedDataKey
from llamora.vault.slots import Argon2Params, KeySlot

logger = getLogger(__name__)

SlotKind = Literal["passphrase", "recovery"]


class NameTaken(StorageError):
    """Somebody here has that name already."""


@dataclass(slots=True, frozen=True)
class User:
    """One writer. `id` is 16 random bytes; `name` is shown as typed and compared by `name_key`."""

    id: bytes
    name: str
    recovery_confirmed: bool


NAME_CHARACTERS = 64


def name_key(name: str) -> str:
    """How names are compared: compatibility-normalised, case-folded, spaces collapsed, cut at NAME_CHARACTERS.

    Anybody may send anything as a name, so the cut comes first. A name as long as that is nobody's.
    """
    return " ".join(normal_form("NFKC", name[: NAME_CHARACTERS + 1]).casefold().split())


class Users:
    """`db.users`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    async def add(self, user: User, slots: Iterable[KeySlot], data_keys: Iterable[SealedDataKey]) -> None:
        """Store a new writer with the keys they were made with. Raises NameTaken."""
        async with self._db.write() as tx:
            if await tx.fetch("SELECT 1 FROM users WHERE name_key=?", (name_key(user.name),)):
                raise NameTaken("That name is taken here. Choose another.")
            await tx.execute(
                "INSERT INTO users (id, name, name_key, recovery_confirmed) VALUES (?, ?, ?, ?)",
                (user.id, user.name, name_key(user.name), user.recovery_confirmed),
            )
            await self._put_slots(tx, user.id, slots)
            await tx.execute_many(
                "INSERT INTO data_keys (user_id, epoch, sealed) VALUES (?, ?, ?)",
                [(user.id, key.epoch, key.sealed) for key in data_keys],
            )

    async def by_name(self, name: str) -> User | None:
        """The writer of that name, compared by `name_key`, or None."""
        return await self._one("name_key=?", name_key(name))

    async def all(self) -> list[User]:
        """Every writer of the instance, by name."""
        rows = await self._db.fetch("SELECT id, name, recovery_confirmed FROM users ORDER BY name_key")
        return [User(user_id, name, bool(confirmed)) for user_id, name, confirmed in rows]

    async def get(self, user_id: bytes) -> User:
        """The writer of that id. Raises NotFound."""
        user = await self._one("id=?", user_id)
        if user is None:
            raise NotFound("There is no such writer here.")
        return user

    async def anybody(self) -> bool:
        """Whether there is a writer at all."""
        return bool(await self._db.fetch("SELECT 1 FROM users LIMIT 1"))

    async def slots(self, user_id: bytes, only: SlotKind | None = None) -> dict[SlotKind, KeySlot]:
        """The writer's key slots by kind, or `only` the one: a spoiled slot must not keep the other from opening.

        A slot with impossible parameters raises vault.slots.BadParameters.
        """
        rows = await self._db.fetch(
            "SELECT kind, salt, params, sealed FROM key_slots WHERE user_id=?1 AND (?2 IS NULL OR kind=?2)",
            (user_id, only),
        )
        return {
            kind: KeySlot(cast(SlotKind, kind), salt, Argon2Params.from_text(params) if params else None, sealed)
            for kind, salt, params, sealed in rows
        }

    async def data_keys(self, user_id: bytes) -> list[SealedDataKey]:
        """The writer's sealed data keys, oldest epoch first."""
        rows = await self._db.fetch("SELECT epoch, sealed FROM data_keys WHERE user_id=? ORDER BY epoch", (user_id,))
        return [SealedDataKey(epoch, sealed) for epoch, sealed in rows]

    async def put_slots(
        self,
        user_id: bytes,
        slots: Sequence[KeySlot],
        *,
        expected: KeySlot | None = None,
        only_session: bytes | None = None,
    ) -> None:
        """Replace the slots of the given kinds.

        With `expected`, only while that slot is still the stored one, else StaleRevision: of two
        changes of a passphrase at once, one wins and the other is told. With `only_session`, every
        session of the writer but that one ends in the same transaction; b"" ends them all. The bytes of the old slots
        are overwritten in the file and gone from its log: what opened them opens nothing here any more.
        """
        async with self._db.write() as tx:
            if expected is not None and not await tx.fetch(
                "SELECT 1 FROM key_slots WHERE user_id=? AND kind=? AND sealed=?",
                (user_id, expected.kind, expected.sealed),
            ):
                raise StaleRevision("The key was changed elsewhere in the meantime. Try again.")
            await self._put_slots(tx, user_id, slots)
            if any(slot.kind == "recovery" for slot in slots):
                await tx.execute("UPDATE users SET recovery_confirmed=0 WHERE id=?", (user_id,))
            if only_session is not None:
                await tx.execute("DELETE FROM dek_sessions WHERE user_id=? AND id<>?", (user_id, only_session))
        await self._db.checkpoint()

    async def erase(self, user_id: bytes) -> None:
        """Remove a writer and everything of theirs; the bytes are overwritten in the file and gone from its log."""
        async with self._db.write() as tx:
            await tx.execute("DELETE FROM users WHERE id=?", (user_id,))
        await self._db.checkpoint()

    async def confirm_recovery(self, user_id: bytes) -> None:
        """Note that the writer has typed back a part of their recovery code."""
        async with self._db.write() as tx:
            await tx.execute("UPDATE users SET recovery_confirmed=1 WHERE id=?", (user_id,))

    async def remember(self, key: str, value: str) -> str:
        """Keep one fact of the instance unless it is there already; returns the one in force."""
        async with self._db.write() as tx:
            await tx.execute("INSERT INTO instance VALUES (?, ?) ON CONFLICT DO NOTHING", (key, value))
            return str((await tx.fetch("SELECT value FROM instance WHERE key=?", (key,)))[0][0])

    async def recall(self, key: str) -> str | None:
        """One fact of the instance, or None."""
        rows = await self._db.fetch("SELECT value FROM instance WHERE key=?", (key,))
        return str(rows[0][0]) if rows else None

    async def _one(self, where: str, value: object) -> User | None:
        rows = await self._db.fetch(f"SELECT id, name, recovery_confirmed FROM users WHERE {where}", (value,))
        return User(rows[0][0], rows[0][1], bool(rows[0][2])) if rows else None

    @staticmethod
    async def _put_slots(tx: Transaction, user_id: bytes, slots: Iterable[KeySlot]) -> None:
        await tx.execute_many(
            "INSERT OR REPLACE INTO key_slots (user_id, kind, salt, params, sealed) VALUES (?, ?, ?, ?, ?)",
            [(user_id, s.kind, s.salt, s.params.to_text() if s.params else None, s.sealed) for s in slots],
        )


class Profiles:
    """`db.profiles`: one sealed record of settings per writer."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    async def get(self, keys: Keyring) -> tuple[bytes, int] | None:
        """The record as stored and its revision, or None before the first one.

        A record that does not open reads as b"": the settings are then set anew, over its revision.
        """
        rows = await self._db.fetch("SELECT sealed, revision FROM profiles WHERE user_id=?", (keys.user_id,))
        if not rows:
            return None
        sealed, revision = rows[0]
        try:
            opened = PROFILES.open(keys, keys.user_id, revision, sealed)
        except SealError as error:
            # Every page asks for the settings: a damaged record must not lock the writer out.
            logger.error("the settings of a writer could not be opened (%s)", type(error).__name__)
            opened = b""
        return opened, revision

    async def put(self, keys: Keyring, record: bytes, *, revision: int) -> None:
        """Store the record that follows the one of `revision` (0: the first). Raises StaleRevision."""
        sealed = PROFILES.seal(keys, keys.user_id, revision + 1, record)
        async with self._db.write() as tx:
            if revision == 0:
                changed = await tx.execute(
                    "INSERT OR IGNORE INTO profiles (user_id, epoch, revision, sealed) VALUES (?, ?, 1, ?)",
                    (keys.user_id, keys.epoch, sealed),
                )
            else:
                changed = await tx.execute(
                    "UPDATE profiles SET epoch=?, revision=revision+1, sealed=? WHERE user_id=? AND revision=?",
                    (keys.epoch, sealed, keys.user_id, revision),
                )
            if changed != 1:
                raise StaleRevision("The settings were changed elsewhere in the meantime.")
