"""Make a daily backup while a user's keys are available, and backups on request."""

import asyncio
import time
from contextlib import suppress
from datetime import date
from logging import getLogger
from pathlib import Path

from llamora.dates import utc_now
from llamora.persistence.backups import write_backup
from llamora.persistence.connection import NotFound, StorageError, os_reason
from llamora.persistence.local_db import LocalDB
from llamora.settings import BackupSettings
from llamora.vault.envelope import VaultError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)

SUFFIX = ".llamora"
RETRY_SECONDS = 3600.0  # after a failed backup, such as on a full disk
STALE_PART_SECONDS = 3600.0  # an older one was left by a killed process


class Backups:
    """Manage the backups of each user: one sealed file a day.

    They are in a folder named by the hex of the user's random id.
    """

    def __init__(self, db: LocalDB, settings: BackupSettings, data_folder: Path) -> None:
        self._db = db
        self._settings = settings
        self._root = settings.folder or data_folder / "backups"
        self._last_attempts: dict[bytes, float] = {}
        self._days_done: dict[bytes, date] = {}
        self._locks: dict[bytes, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def retained_count(self) -> int:
        """Return the number of backups kept; 0 if daily backups are off."""
        return self._settings.keep if self._settings.daily else 0

    def folder_of_user(self, user_id: bytes) -> Path:
        """Return the folder of a user's backups, which may not exist."""
        return self._root / user_id.hex()

    def list_files(self, user_id: bytes) -> list[Path]:
        """List a user's backups, oldest first."""
        return sorted(self.folder_of_user(user_id).glob(f"????-??-??{SUFFIX}"))

    async def find_latest_day(self, user_id: bytes) -> date | None:
        """Return the day (UTC) of a user's newest backup, or None."""
        for file in reversed(await asyncio.to_thread(self.list_files, user_id)):
            with suppress(ValueError):
                return date.fromisoformat(file.stem)
        return None

    def start_daily_backup(self, keys: Keyring) -> None:
        """Start today's backup in the background, unless it exists or daily backups are off.

        After a failure the next attempt is made no sooner than RETRY_SECONDS later.
        """
        user_id, now = keys.user_id, time.monotonic()
        if not self._settings.daily or self._days_done.get(user_id) == utc_now().date():
            return
        if now - self._last_attempts.get(user_id, -RETRY_SECONDS) < RETRY_SECONDS:
            return
        self._last_attempts[user_id] = now
        task = asyncio.create_task(self._run_daily_backup(keys), name="backup")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def create(self, keys: Keyring) -> Path:
        """Write a backup, replacing an earlier one of today, and delete the oldest ones.

        Raises StorageError and vault.keys.KeyringClosed.
        """
        user_id = keys.user_id
        async with self._locks.setdefault(user_id, asyncio.Lock()):
            target = self._path_for_today(user_id)
            try:
                await asyncio.to_thread(write_backup, self._db.path, keys, target)
            except NotFound:  # the account was deleted meanwhile, so its folder must not come back
                with suppress(OSError):
                    await asyncio.to_thread(self.folder_of_user(user_id).rmdir)
                raise
            await asyncio.to_thread(self._prune, user_id, target)
        return target

    async def delete_all(self, user_id: bytes) -> None:
        """Delete all backups of a user, after waiting for one in progress.

        Raises StorageError.
        """
        async with self._locks.setdefault(user_id, asyncio.Lock()):
            try:
                await asyncio.to_thread(self._delete_files, user_id)
            except OSError as error:
                folder = str(self.folder_of_user(user_id))
                raise StorageError(
                    "folder_not_removed", folder=folder, reason=os_reason(error)
                ) from None

    def _delete_files(self, user_id: bytes) -> None:
        folder = self.folder_of_user(user_id)
        for file in [*folder.glob(f"*{SUFFIX}"), *folder.glob("*.part")]:
            file.unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    async def close(self) -> None:
        """Wait for the backups in progress."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run_daily_backup(self, keys: Keyring) -> None:
        user_id, today = keys.user_id, utc_now().date()
        try:
            if not await asyncio.to_thread(self._path_for_today(user_id).exists):
                await self.create(keys)
            self._days_done[user_id] = today
            self._last_attempts.pop(user_id, None)  # tomorrow's need not wait
        except (StorageError, VaultError, OSError) as error:
            logger.warning("a backup could not be made (%s)", type(error).__name__)

    def _path_for_today(self, user_id: bytes) -> Path:
        return self.folder_of_user(user_id) / f"{utc_now().date().isoformat()}{SUFFIX}"

    def _prune(self, user_id: bytes, newest: Path) -> None:
        # Never delete the new one: if the clock was ahead there are files of later days.
        older_files = [file for file in self.list_files(user_id) if file != newest]
        for file in older_files[: max(len(older_files) - self._settings.keep + 1, 0)]:
            file.unlink(missing_ok=True)
        for part in self.folder_of_user(user_id).glob("*.part"):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > STALE_PART_SECONDS:
                    part.unlink()
