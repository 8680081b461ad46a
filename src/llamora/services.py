"""The services of an app, built once from settings, started and stopped in order.

Nothing here knows a web framework.
"""

import asyncio
import secrets
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from logging import getLogger

from llamora.events import Broker, ChangeSignal, Event, EventBus, Handler, Service, Topic
from llamora.journal.access import Access
from llamora.journal.accounts import Accounts
from llamora.journal.asking import Asking
from llamora.journal.backups import Backups
from llamora.journal.days import Days
from llamora.journal.drafts import Drafts
from llamora.journal.entries import Journal
from llamora.journal.integrity import Integrity
from llamora.journal.openings import Openings
from llamora.journal.preferences import Preferences
from llamora.journal.replies import Replies
from llamora.journal.rotation import Rotation
from llamora.journal.searches import Searches
from llamora.journal.sessions import Sessions
from llamora.journal.suggestions import Suggestions
from llamora.journal.summaries import Summaries
from llamora.journal.tag_pages import TagPages
from llamora.journal.throttle import AttemptLedger, Throttle
from llamora.journal.trash import Trash
from llamora.journal.versions import Versions
from llamora.journal.withholding import Withholding
from llamora.llm.model import Model, SharedServer
from llamora.llm.queue import ModelQueue, SharedModelQueue
from llamora.persistence.connection import StorageError
from llamora.persistence.local_db import LocalDB
from llamora.search.embedder import Embedder
from llamora.search.pending import PendingQueries, PendingStore
from llamora.search.service import SearchService
from llamora.settings import Settings
from llamora.vault.envelope import VaultError

logger = getLogger(__name__)

SWEEP_SECONDS = 20.0
LOOK_SECONDS = 1.0  # until a change by a command beside the server is seen
EXTRA_STOP_SECONDS = 2.0  # beyond `shutdown_seconds`, for everything
EXIT_SECONDS = 0.4  # of these, to leave the loop and the process
STORE_SECONDS = 0.8  # of these, for the store, whatever hangs before it


@dataclass(slots=True, frozen=True)
class SharedState:
    """State that one worker shares with the others; an app without it is a server by itself.

    `boot_secret` (32 bytes) is never written to disk. `events` is connected to the broker of the
    parent, and `model` is the built-in model server there. `worker_number` is unique in this run of
    the server; a replacement gets a new one.
    """

    boot_secret: bytes = field(repr=False)
    events: EventBus
    model: SharedServer | None = None
    worker_number: int = 0

    @property
    def worker_id(self) -> str:
        """The name of this worker, in this run of the server, in what it has not finished."""
        return self._id_of(self.worker_number)

    def is_worker_alive(self, worker_id: str) -> bool:
        """Return True if a name is that of a worker that is alive."""
        return worker_id in map(self._id_of, self.events.live_workers)

    def _id_of(self, number: int) -> str:
        # It reveals nothing of the secret.
        run_id = sha256(b"llamora/1/boot-name" + self.boot_secret).hexdigest()[:16]
        return f"{run_id}.{number}"


def create_broker(settings: Settings) -> Broker:
    """Return the broker of a server, with all that is kept there for its workers."""
    queries, attempts = PendingStore(), AttemptLedger()
    handlers: dict[Service, Handler] = {
        Service.MODEL_SLOTS: ModelQueue(settings.llm.slots).serve,
        Service.GUESSES: attempts.serve,
        Service.QUERIES: queries.serve,
    }
    broker = Broker(handlers)
    broker.bus.subscribe(Topic.QUERIES_FORGOTTEN, queries.forget)
    return broker


class _Foundation:
    """The parts that use cases are built on: the store, search, the model, and what workers share."""

    def __init__(self, settings: Settings, shared: SharedState | None) -> None:
        self.settings = settings
        self.is_standalone = shared is None
        if shared is None:
            events = create_broker(settings).connect_in_memory()
            shared = SharedState(secrets.token_bytes(32), events)
        self.boot_secret = shared.boot_secret
        self.events = events = shared.events
        self.changes = ChangeSignal(events)
        self.shutting_down = asyncio.Event()
        self.db = LocalDB(settings.data.database)
        self.db.on_commit(lambda: events.publish(Event(Topic.CHANGED)))
        self.embedder = Embedder(settings.embedding, settings.data.cache)
        pending = PendingQueries(events)
        self.search = SearchService(self.db, self.embedder, settings.search, pending, self.changes)
        folder = settings.data.folder / "prompts"
        prompts_folder = folder if folder.is_dir() else None
        self.model = Model(settings.llm, shared.model, SharedModelQueue(events), prompts_folder)
        self.journal = Journal(self.db, self.search, settings.entries, events)
        self.replies = Replies(
            self.db,
            self.journal,
            self.search,
            self.model,
            shared.worker_id,
            self.changes,
            shared.is_worker_alive,
        )


class AppServices(_Foundation):
    """The services of one app. Two apps in one process share none."""

    def __init__(self, settings: Settings, shared: SharedState | None) -> None:
        super().__init__(settings, shared)
        db, journal, search, model = self.db, self.journal, self.search, self.model
        replies, events = self.replies, self.events
        self.sessions = Sessions(db, settings.session, self.boot_secret, events, replies.lock)
        self.accounts = Accounts(db, settings.crypto, self.sessions)
        self.throttle = Throttle(db, events, self.boot_secret)
        self.rotation = Rotation(db)
        self.integrity = Integrity(db)
        self.backups = Backups(db, settings.backup, settings.data.folder)
        self.trash = Trash(db, journal, search, replies, events)
        self.drafts = Drafts(db, settings.entries)
        self.versions = Versions(db, journal)
        self.withholding = Withholding(db, journal, search, replies)
        self.summaries = Summaries(db, journal, model)
        self.openings = Openings(db, journal, self.summaries)
        self.suggestions = Suggestions(db, journal, search, model)
        self.searches = Searches(db, journal, search, settings.search.page_size)
        self.asking = Asking(journal, replies, self.searches, model)
        self.days = Days(db, journal, self.drafts, self.summaries, self.openings, model)
        self.tag_pages = TagPages(db, journal.tags, self.summaries)
        self.preferences = Preferences(db, self.accounts, search, model)
        self.access = Access(
            db,
            self.accounts,
            self.sessions,
            self.throttle,
            search,
            self.trash,
            self.backups,
            self.rotation,
            self.integrity,
            settings.server.registration,
        )
        for lock in (search.lock, self.rotation.lock, self.integrity.lock, journal.tags.cache.lock):
            events.subscribe(Topic.SIGNED_OUT, lambda event, lock=lock: lock(event.user_id))

    @classmethod
    def create(cls, settings: Settings, shared: SharedState | None = None) -> "AppServices":
        """Build the services without opening or starting them.

        Raises llm.prompts.PromptTemplateError.
        """
        return cls(settings, shared)


class AppLifecycle:
    """The start and the stop of the services of an app.

    They start in order and stop in reverse, once, however often `stop` is called.
    """

    def __init__(self, services: AppServices) -> None:
        self._services = services
        self._tasks: list[asyncio.Task[None]] = []
        self._deadline: float | None = None  # of the stop, on the clock of the loop
        self._stop_task: asyncio.Task[None] | None = None
        self._started = False

    async def start(self) -> None:
        """Open and migrate the store and start the services; models load in the background.

        Raises StorageError.
        """
        s = self._services
        await s.db.open_connections()
        self._started = True
        if s.is_standalone:
            # Their keys were sealed under the secret of a process that has ended.
            await s.db.sessions.clear()
        await s.search.start()
        s.model.start()
        self._tasks = [
            asyncio.create_task(job, name=name)
            for name, job in (
                ("embedding warm-up", s.embedder.warm_up()),
                ("session sweep", self._sweep()),
                ("changes", self._apply_changes()),
                ("look for changes", self._look_for_changes()),
            )
        ]

    async def quiesce(self) -> None:
        """End streams and replies, so that open connections can be closed."""
        if not self._services.shutting_down.is_set():
            self._services.shutting_down.set()
            closing = self._services.replies.close()
            await self._stop_in_time(reserve=EXTRA_STOP_SECONDS, replies=closing)

    def seconds_to_close(self) -> float:
        """Return the seconds that open connections may still take after `quiesce`."""
        return max(0.0, self._seconds_left(EXTRA_STOP_SECONDS / 2))

    async def stop(self) -> None:
        """Stop what was started.

        From `quiesce` on all of it takes `shutdown_seconds` and EXTRA_STOP_SECONDS at most: what
        hangs is left as a crash would leave it.
        """
        if self._stop_task is None:
            self._stop_task = asyncio.create_task(self._stop(), name="stop")
        await asyncio.shield(self._stop_task)

    async def _stop(self) -> None:
        if not self._started:
            return
        s = self._services
        await self.quiesce()
        for task in self._tasks:
            task.cancel()
        await self._stop_in_time(
            erasing=s.trash.close(),
            backup=s.backups.close(),
            rotation=s.rotation.close(),
            integrity=s.integrity.close(),
            search=s.search.stop(),
            embedding=s.embedder.close(),
            model=s.model.stop(),
            throttle=s.throttle.close(),
        )
        s.sessions.close()
        if s.is_standalone:
            await self._stop_in_time(reserve=STORE_SECONDS / 2, sessions=s.db.sessions.clear())
        await self._stop_in_time(reserve=0.0, store=s.db.close())

    async def _stop_in_time(
        self, *, reserve: float = STORE_SECONDS, **parts: Awaitable[None]
    ) -> None:
        """Await all parts, up to the deadline of the stop less `reserve` seconds."""
        tasks = {asyncio.ensure_future(part): name for name, part in parts.items()}
        await asyncio.wait(tasks, timeout=max(0.05, self._seconds_left(reserve)))
        for task, name in tasks.items():
            if not task.done():
                task.cancel()
                logger.warning("%s did not stop in time", name)
            elif not task.cancelled() and (error := task.exception()) is not None:
                logger.warning("%s did not stop cleanly (%s)", name, type(error).__name__)

    def _seconds_left(self, reserve: float) -> float:
        now = asyncio.get_running_loop().time()
        if self._deadline is None:
            seconds = self._services.settings.server.shutdown_seconds + EXTRA_STOP_SECONDS
            self._deadline = now + seconds - EXIT_SECONDS
        return self._deadline - reserve - now

    def lock_signed_out(self) -> None:
        """Forget what is open for users who have signed out.

        A reply that was still queued may have opened their index again.
        """
        s = self._services
        for user_id in s.search.unlocked_user_ids():
            if not s.sessions.is_signed_in(user_id):
                s.events.publish(Event(Topic.SIGNED_OUT, user_id))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.lock_signed_out()
            try:
                await self._services.sessions.end_expired_sessions()
                await self._services.db.retry_checkpoint()
                for keys in self._services.sessions.open_keyrings():
                    self._services.trash.run_maintenance(keys)
                    self._services.backups.start_daily_backup(keys)
                    await self._services.rotation.resume_pending(keys)
            except (StorageError, VaultError) as error:  # such as keys locked meanwhile
                logger.warning("the sweep of sessions failed (%s)", type(error).__name__)

    async def _apply_changes(self) -> None:
        """Bring sessions and keys up to date whenever something was committed anywhere."""
        s, change = self._services, self._services.changes.next_change
        while True:
            await change.wait()
            change = s.changes.next_change
            try:
                await s.sessions.sync_with_database()
            except (StorageError, VaultError) as error:
                logger.warning(
                    "what changed elsewhere could not be read (%s)", type(error).__name__
                )

    async def _look_for_changes(self) -> None:
        """Notice commits of commands beside the server, and sessions that ran out of time."""
        s, last_version = self._services, -1
        while True:
            await s.sessions.signed_in.wait()
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(StorageError):
                version = await s.db.data_version()
                if version != last_version or s.sessions.has_expired_session():
                    s.events.deliver(Event(Topic.CHANGED))
                last_version = version
