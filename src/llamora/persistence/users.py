"""Users, their key slots and data keys, and the few facts of the whole instance."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from llamora.persistence.connection import (
    Connections,
    NotFound,
    StaleRevision,
    StorageError,
    Transaction,
)
from llamora.persistence.schema import DATA_KEY, PROFILES
from llamora.persistence.table import SealedTable
from llamora.text import normal_form
from llamora.vault.key_renewal import NewKeys
from llamora.vault.keys import Keyring, SealedDataKey, SealedKeys
from llamora.vault.slots import KeySlot


class NameTaken(StorageError):
    """Another user here has that name already."""

    status = 422


@dataclass(slots=True, frozen=True)
class User:
    """One user. `id` is 16 random bytes; `name` is shown as typed and compared by `name_key`."""

    id: bytes
    name: str
    recovery_confirmed: bool


MAX_NAME_CHARACTERS = 64
INSERT_SLOT = (
    "INSERT INTO key_slots (id, user_id, kind, salt, params, sealed) VALUES (?, ?, ?, ?, ?, ?)"
)


def name_key(name: str) -> str:
    """Return a name for comparison: NFKC, case-folded, spaces collapsed, cut off.

    Anybody may send anything as a name, so the cut at MAX_NAME_CHARACTERS comes first. A name as
    long as that is nobody's.
    """
    return " ".join(normal_form("NFKC", name[: MAX_NAME_CHARACTERS + 1]).casefold().split())


def slot_row(user_id: bytes, slot: KeySlot) -> tuple[object, ...]:
    """Return the parameters of INSERT_SLOT."""
    return slot.id, user_id, slot.kind, slot.salt, slot.params, slot.sealed


class Users:
    """The store of users, reached as `db.users`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    async def add(self, user: User, slots: Iterable[KeySlot], keys: SealedKeys) -> None:
        """Store a new user with the keys made for them. Raise NameTaken."""
        async with self._db.write() as tx:
            if await tx.fetch("SELECT 1 FROM users WHERE name_key=?", (name_key(user.name),)):
                raise NameTaken("name_taken")
            await tx.execute(
                "INSERT INTO users (id, name, name_key, recovery_confirmed) VALUES (?, ?, ?, ?)",
                (user.id, user.name, name_key(user.name), user.recovery_confirmed),
            )
            await _put_keys(tx, user.id, slots, keys)

    async def find_by_name(self, name: str) -> User | None:
        """Return the user of that name, compared by `name_key`, or None."""
        return await self._find("name_key=?", name_key(name))

    async def list_all(self) -> list[User]:
        rows = await self._db.fetch(
            "SELECT id, name, recovery_confirmed FROM users ORDER BY name_key"
        )
        return [User(user_id, name, bool(confirmed)) for user_id, name, confirmed in rows]

    async def get(self, user_id: bytes) -> User:
        """Return the user of that id. Raise NotFound."""
        user = await self._find("id=?", user_id)
        if user is None:
            raise NotFound("user_not_found")
        return user

    async def has_any(self) -> bool:
        return bool(await self._db.fetch("SELECT 1 FROM users LIMIT 1"))

    async def get_slots(self, user_id: bytes, kind: str = "") -> list[KeySlot]:
        rows = await self._db.fetch(
            "SELECT id, CAST(kind AS TEXT), CAST(salt AS BLOB), CAST(params AS TEXT),"
            " CAST(sealed AS BLOB) FROM key_slots"
            " WHERE user_id=?1 AND (?2='' OR kind=?2)",
            (user_id, kind),
        )
        return [KeySlot(*row) for row in rows]

    async def keys(self, user_id: bytes) -> SealedKeys:
        """Return the user's sealed keys as of one instant; empty for an unknown user."""
        rows = await self._db.fetch(
            "SELECT epoch, CAST(sealed AS BLOB), CAST(slots AS BLOB), CAST(index_key AS BLOB)"
            f" FROM data_keys JOIN keyrings USING (user_id) WHERE user_id=? AND {DATA_KEY}"
            " ORDER BY epoch",
            (user_id,),
        )
        if not rows:
            return SealedKeys((), b"", b"")
        return SealedKeys(
            tuple(SealedDataKey(row[0], row[1]) for row in rows), rows[0][2], rows[0][3]
        )

    async def get_data_keys(self, user_id: bytes) -> list[SealedDataKey]:
        """Return the user's sealed data keys, oldest epoch first."""
        rows = await self._db.fetch(
            f"SELECT epoch, CAST(sealed AS BLOB) FROM data_keys WHERE user_id=? AND {DATA_KEY}"
            " ORDER BY epoch",
            (user_id,),
        )
        return [SealedDataKey(epoch, sealed) for epoch, sealed in rows]

    async def replace_slot(
        self, user_id: bytes, stored: SealedKeys, old: bytes, slot: KeySlot, new: SealedKeys
    ) -> None:
        """Replace slot `old` if the list of slots is still as `stored`. Raise StaleRevision."""
        async with self._db.write() as tx:
            await _require_unchanged(tx, user_id, stored)
            await tx.execute("UPDATE keyrings SET slots=? WHERE user_id=?", (new.slots, user_id))
            await tx.execute("DELETE FROM key_slots WHERE user_id=? AND id=?", (user_id, old))
            await _put_slots(tx, user_id, [slot])
        await self._overwrite()

    async def renew_keys(
        self,
        user_id: bytes,
        stored: SealedKeys,
        new: NewKeys,
        *,
        only_session: bytes = b"",
        session_key: bytes | None = None,
        code_changed: bool = False,
    ) -> None:
        """Replace the `stored` keys and slots with new ones and end every session but one.

        `session_key` is stored in the row of `only_session` in `session` mode. The copy of the
        search index is deleted and made again, and no browser is known any more. Of two changes at
        once one wins, the other raises StaleRevision. The bytes of the old slots and keys are
        overwritten in the file and gone from its log, so what opened them opens nothing here any more.
        """
        async with self._db.write() as tx:
            await _require_unchanged(tx, user_id, stored)
            for table in ("key_slots", "data_keys", "keyrings"):
                await tx.execute(f"DELETE FROM {table} WHERE user_id=?", (user_id,))
            await _put_keys(tx, user_id, new.slots, new.sealed)
            if code_changed:
                await tx.execute("UPDATE users SET recovery_confirmed=0 WHERE id=?", (user_id,))
            await tx.execute(
                "DELETE FROM dek_sessions WHERE user_id=? AND id<>?", (user_id, only_session)
            )
            # Not a session that was locked meanwhile and holds no key any more.
            await tx.execute(
                "UPDATE dek_sessions SET sealed=? WHERE id=? AND sealed IS NOT NULL",
                (session_key, only_session),
            )
            for table in ("search_snapshots", "known_devices"):
                await tx.execute(f"DELETE FROM {table} WHERE user_id=?", (user_id,))
        await self._overwrite()

    async def _overwrite(self) -> None:
        # The change stands: a disk that is full now must not make it look refused, with a new
        # recovery code that nobody is shown. The checkpoint is made later
        # (`Connections.checkpoint_pending`).
        with suppress(StorageError):
            await self._db.checkpoint()

    async def erase(self, user_id: bytes) -> None:
        """Erase a user with all records; the bytes are overwritten in the file and its log."""
        async with self._db.write() as tx:
            await tx.execute("DELETE FROM users WHERE id=?", (user_id,))
        await self._db.checkpoint()

    async def confirm_recovery(self, user_id: bytes) -> None:
        """Record that the user has typed back a part of their recovery code."""
        async with self._db.write() as tx:
            await tx.execute("UPDATE users SET recovery_confirmed=1 WHERE id=?", (user_id,))

    async def set_instance_fact(self, key: str, value: str) -> str:
        """Store one fact of the instance unless it exists already; return the one in force."""
        async with self._db.write() as tx:
            await tx.execute(
                "INSERT INTO instance VALUES (?, ?) ON CONFLICT DO NOTHING", (key, value)
            )
            return str((await tx.fetch("SELECT value FROM instance WHERE key=?", (key,)))[0][0])

    async def get_instance_fact(self, key: str) -> str | None:
        rows = await self._db.fetch("SELECT value FROM instance WHERE key=?", (key,))
        return str(rows[0][0]) if rows else None

    async def _find(self, where: str, value: object) -> User | None:
        rows = await self._db.fetch(
            f"SELECT id, name, recovery_confirmed FROM users WHERE {where}", (value,)
        )
        return User(rows[0][0], rows[0][1], bool(rows[0][2])) if rows else None


async def _require_unchanged(tx: Transaction, user_id: bytes, stored: SealedKeys) -> None:
    # Every change seals the list of slots anew.
    if not await tx.fetch(
        "SELECT 1 FROM keyrings WHERE user_id=? AND slots=?", (user_id, stored.slots)
    ):
        raise StaleRevision("key_changed_elsewhere")


async def _put_keys(
    tx: Transaction, user_id: bytes, slots: Iterable[KeySlot], keys: SealedKeys
) -> None:
    await _put_slots(tx, user_id, slots)
    await tx.execute(
        "INSERT INTO keyrings (user_id, slots, index_key) VALUES (?, ?, ?)",
        (user_id, keys.slots, keys.index_key),
    )
    await tx.execute_many(
        "INSERT INTO data_keys (user_id, epoch, sealed) VALUES (?, ?, ?)",
        [(user_id, key.epoch, key.sealed) for key in keys.data_keys],
    )


async def _put_slots(tx: Transaction, user_id: bytes, slots: Iterable[KeySlot]) -> None:
    await tx.execute_many(INSERT_SLOT, [slot_row(user_id, slot) for slot in slots])


class Profiles:
    """The store of settings, one sealed record per user, reached as `db.profiles`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections
        self._table = SealedTable(connections, PROFILES, bytes)

    async def get(self, keys: Keyring) -> tuple[bytes, int] | None:
        """Return the stored record and its revision, or None before the first one.

        A record that does not open reads as b"": every page reads the settings, so they are set
        anew, over its revision.
        """
        stored = await self._table.get(keys, keys.user_id)
        return (stored.value or b"", stored.revision) if stored else None

    async def save(self, keys: Keyring, record: bytes, *, revision: int) -> None:
        """Store the record that follows the one of `revision` (0: the first).

        Raise StaleRevision when another was stored meanwhile.
        """
        row = self._table.seal(keys, keys.user_id, revision + 1, record)
        store = self._table.update if revision else self._table.insert
        async with self._db.write(keys=keys) as tx:
            if not await store(tx, row):
                raise StaleRevision("settings_changed_elsewhere")
