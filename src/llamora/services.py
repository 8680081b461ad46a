"""The services of an app, built once from settings, started and stopped in order.

Nothing here knows a web framework.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from hashlib import sha256
from logging import getLogger

from llamora.events import ChangeSignal, Event, EventBus, Topic
from llamora.journal.accounts import Accounts
from llamora.journal.backups import Backups
from llamora.journal.entries import Journal
from llamora.journal.openings import Openings
from llamora.journal.replies import Replies
from llamora.journal.rotation import Rotation
from llamora.journal.sessions import Sessions
from llamora.journal.suggestions import Suggestions
from llamora.journal.summaries import Summaries
from llamora.journal.throttle import Throttle
from llamora.llm.model import Model, SharedServer
from llamora.llm.prompts import PromptBuilder
from llamora.llm.queue import ModelQueue, slot_lock_paths
from llamora.persistence.connection import StorageError
from llamora.persistence.local_db import LocalDB
from llamora.search.embedder import Embedder
from llamora.search.pending import PendingQueries
from llamora.search.service import SearchService
from llamora.settings import Settings
from llamora.vault.envelope import VaultError

logger = getLogger(__name__)

SWEEP_SECONDS = 20.0
CHANGE_POLL_SECONDS = 0.4  # until changes by time, another worker or a command are seen
STOP_TIMEOUT_SECONDS = 2.5  # per service; under five seconds together with Hypercorn's own


@dataclass(slots=True, frozen=True)
class SharedState:
    """State that the workers of one server share; an app without it is a server by itself.

    `boot_secret` (32 bytes) is never written to disk. `model` is the built-in model server of the
    parent process, `pending_queries` holds the queries that addresses refer to.
    """

    boot_secret: bytes = field(repr=False)
    model: SharedServer | None = None
    pending_queries: PendingQueries | None = None
    worker_number: int = 0
    """Number of this worker, unique in this run of the server; a replacement gets a new one."""
    live_workers: Callable[[], Collection[int]] = lambda: ()
    """Return the numbers of the workers that are alive."""


@dataclass(slots=True)
class AppServices:
    """The services of one app. Two apps in one process share none."""

    settings: Settings
    boot_secret: bytes = field(repr=False)
    is_standalone: bool
    db: LocalDB
    embedder: Embedder
    search: SearchService
    model: Model
    events: EventBus
    sessions: Sessions
    accounts: Accounts
    journal: Journal
    backups: Backups
    rotation: Rotation
    replies: Replies
    summaries: Summaries
    openings: Openings
    suggestions: Suggestions
    throttle: Throttle = field(default_factory=Throttle)
    changes: ChangeSignal = field(default_factory=ChangeSignal)
    """Fires within CHANGE_POLL_SECONDS of a commit by this or another process."""
    shutting_down: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def create(cls, settings: Settings, shared: SharedState | None = None) -> "AppServices":
        """Build the services without opening or starting them.

        Raises llm.prompts.PromptTemplateError.
        """
        boot_secret = shared.boot_secret if shared else secrets.token_bytes(32)
        db = LocalDB(settings.data.database)
        embedder = Embedder(settings.embedding, settings.data.cache)
        search = SearchService(
            db, embedder, settings.search, shared.pending_queries if shared else None
        )
        model = Model(settings.llm, shared.model if shared else None)
        custom_prompts = settings.data.folder / "prompts"
        prompts = PromptBuilder(settings.llm, custom_prompts if custom_prompts.is_dir() else None)
        journal = Journal(db, search, settings.entries)
        # Identifies this run of the server in unfinished replies; it reveals nothing of the secret.
        run_id = sha256(b"llamora/1/boot-name" + boot_secret).hexdigest()[:16]
        llm, workers = settings.llm, settings.server.workers
        queue = ModelQueue(llm.slots, slot_lock_paths(settings.data.database, llm.slots, workers))
        worker_number = shared.worker_number if shared else 0

        def is_live_worker(worker_id: str) -> bool:
            return shared is not None and worker_id in {
                f"{run_id}.{worker}" for worker in shared.live_workers()
            }

        replies = Replies(
            db,
            journal,
            search,
            model,
            prompts,
            llm,
            f"{run_id}.{worker_number}",
            queue,
            is_live_worker,
        )
        summaries = Summaries(db, journal, model, prompts, replies.queue)
        rotation = Rotation(db)
        events = EventBus()

        for lock in (search.lock, rotation.lock, journal.tags.lock):
            events.subscribe(Topic.SIGNED_OUT, lambda event, lock=lock: lock(event.user_id))
        sessions = Sessions(db, settings.session, boot_secret, events, replies.lock)

        return cls(
            settings=settings,
            boot_secret=boot_secret,
            is_standalone=shared is None,
            db=db,
            embedder=embedder,
            search=search,
            model=model,
            events=events,
            sessions=sessions,
            accounts=Accounts(db, settings.crypto, sessions),
            journal=journal,
            rotation=rotation,
            backups=Backups(db, settings.backup, settings.data.folder),
            replies=replies,
            summaries=summaries,
            openings=Openings(db, journal, summaries),
            suggestions=Suggestions(db, journal, search, model, prompts, replies.queue),
        )


class AppLifecycle:
    """The start and the stop of the services of an app.

    They start in order and stop in reverse, once, however often `stop` is called.
    """

    def __init__(self, services: AppServices) -> None:
        self._services = services
        self._sweep_task: asyncio.Task[None] | None = None
        self._watch_task: asyncio.Task[None] | None = None
        self._warm_up_task: asyncio.Task[None] | None = None
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
        self._warm_up_task = asyncio.create_task(s.embedder.warm_up(), name="embedding warm-up")
        self._sweep_task = asyncio.create_task(self._sweep(), name="session sweep")
        self._watch_task = asyncio.create_task(self._watch_changes(), name="session watch")

    async def quiesce(self) -> None:
        """End streams and replies, so that open connections can be closed."""
        self._services.shutting_down.set()
        await _stop_in_time(self._services.replies.close(), "replies")

    async def stop(self) -> None:
        """Stop what was started, within STOP_TIMEOUT_SECONDS per service."""
        if self._stop_task is None:
            self._stop_task = asyncio.create_task(self._stop(), name="stop")
        await asyncio.shield(self._stop_task)

    async def _stop(self) -> None:
        if not self._started:
            return
        s = self._services
        await self.quiesce()
        for task in (self._watch_task, self._sweep_task, self._warm_up_task):
            if task is not None:
                task.cancel()
        await _stop_in_time(s.journal.close(), "erasing")
        await _stop_in_time(s.backups.close(), "backup")
        await _stop_in_time(s.rotation.close(), "rotation")
        await _stop_in_time(s.search.stop(), "search")
        await _stop_in_time(s.embedder.close(), "embedding")
        await _stop_in_time(s.model.stop(), "model")
        s.sessions.close()
        if s.is_standalone:
            await _stop_in_time(s.db.sessions.clear(), "sessions")
        await _stop_in_time(s.db.close(), "store")

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
                    self._services.journal.run_maintenance(keys)
                    self._services.backups.start_daily_backup(keys)
                    await self._services.rotation.resume_pending(keys)
            except (StorageError, VaultError) as error:  # such as keys locked meanwhile
                logger.warning("the sweep of sessions failed (%s)", type(error).__name__)

    async def _watch_changes(self) -> None:
        s, last_counter = self._services, -1
        while True:
            await asyncio.sleep(CHANGE_POLL_SECONDS)
            try:
                counter = await s.db.data_version()
                if counter != last_counter or s.sessions.has_expired_session():
                    await s.sessions.sync_with_database()
                    s.changes.notify()
                last_counter = counter
            except (StorageError, VaultError) as error:
                logger.warning(
                    "what changed elsewhere could not be read (%s)", type(error).__name__
                )


async def _stop_in_time(stopping: Awaitable[None], part: str) -> None:
    try:
        await asyncio.wait_for(stopping, STOP_TIMEOUT_SECONDS)
    except TimeoutError:
        logger.warning("%s did not stop in time", part)
    except Exception as error:
        logger.warning("%s did not stop cleanly (%s)", part, type(error).__name__)
