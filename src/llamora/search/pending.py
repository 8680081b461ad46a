"""Keep pending queries, which a URL names, sealed, and in memory that all workers share."""

import secrets
from collections import OrderedDict

from llamora.events import Broker, Channel, Event, EventBus, Service, Topic
from llamora.persistence.schema import PENDING_QUERIES
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

MAX_QUERIES = 512  # of all users together; the oldest make room
MAX_SEALED_BYTES = 8_400  # a character of MAX_QUERY takes 4 bytes at most, and padding
ID_BYTES = 16


class PendingStore:
    """The part in the broker's process: sealed queries by name and user."""

    def __init__(self) -> None:
        self._sealed: OrderedDict[bytes, bytes] = OrderedDict()  # by name and user id

    async def serve(self, channel: Channel, message: bytes) -> None:
        """Keep a query, or answer with it: name, user id and, to keep it, the sealed query."""
        key, sealed = message[: 2 * ID_BYTES], message[2 * ID_BYTES :]
        if sealed:
            self._sealed[key] = sealed
            if len(self._sealed) > MAX_QUERIES:
                self._sealed.popitem(last=False)
        channel.send(self._sealed.get(key, b""))

    def forget(self, event: Event) -> None:
        for key in [key for key in self._sealed if key.endswith(event.user_id)]:
            del self._sealed[key]


class PendingQueries:
    """Give sealed queries to the broker's process, and get them back."""

    def __init__(self, events: EventBus | None = None) -> None:
        """Share the queries of a server's `events`; without it they are of this object alone."""
        if events is None:
            store = PendingStore()
            broker = Broker({Service.QUERIES: store.serve})
            broker.bus.subscribe(Topic.QUERIES_FORGOTTEN, store.forget)
            events = broker.connect_in_memory()
        self._events = events

    async def add(self, keys: Keyring, query: str) -> bytes:
        """Keep a query; return its random name of 16 bytes."""
        name = secrets.token_bytes(ID_BYTES)
        sealed = PENDING_QUERIES.seal(keys, name, 1, query.encode("utf-8", "replace"))
        if len(sealed) <= MAX_SEALED_BYTES:
            await self._events.call(Service.QUERIES, name + keys.user_id + sealed)
        return name

    async def get(self, keys: Keyring, name: bytes) -> str:
        """Return the user's query of a name, "" when it is not known (any more)."""
        sealed = await self._events.call(Service.QUERIES, name + keys.user_id)
        try:
            return PENDING_QUERIES.open(keys, name, 1, sealed).decode() if sealed else ""
        except (SealError, ValueError):
            return ""

    def forget(self, user_id: bytes) -> None:
        """Forget a user's queries, for every worker."""
        self._events.publish(Event(Topic.QUERIES_FORGOTTEN, user_id))
