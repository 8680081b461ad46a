"""A server, and a user several of whose clients post to it until it is killed."""

import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from scripts.torture import harness
from scripts.torture.invariants import ExpectedEntry
from scripts.torture.jobs import Store
from scripts.torture.writers import WRITER_COUNT, day_of, new_id, own_entries
from tests.server_process import HttpUser, Server


@dataclass(slots=True)
class ServedJournal:
    """A server, and the user whose clients post to it."""

    server: Server
    user: HttpUser
    store: Store

    @classmethod
    def start(
        cls, folder: Path, cache: Path, env: Mapping[str, str] = harness.WITHOUT_MODELS
    ) -> "ServedJournal":
        """Start a new server with one user, whose keys are opened here too."""
        open_to_all = {"LLAMORA_SERVER__REGISTRATION": "true", **env}
        server = Server(folder, cache, mode="prod", env=open_to_all).start()
        user = HttpUser(server.url).register()
        ((user_id,),) = harness.fetch(harness.database_of(server), "SELECT id FROM users")
        return cls(server, user, Store(server.data, user_id, user.recovery_code))

    def run_round(self, rng: random.Random, longest: float = 0.5) -> dict[str, int]:
        """Post with all clients until the kill, after `longest` seconds at the most; then sign in again."""
        acknowledged_before = self.store.expected.acknowledged
        self.post_and_kill(rng, rng.uniform(0.01, longest))
        counts = self.store.check()
        counts["acknowledged"] = self.store.expected.acknowledged - acknowledged_before
        harness.sign_in_again(self.server, self.user)
        return counts

    def post_and_kill(self, rng: random.Random, seconds: float) -> None:
        """Post with all clients and kill the server."""
        entries = self.store.expected.entries()
        threads = harness.run_threads(
            partial(self._post_until_killed, number, random.Random(rng.random()), entries)
            for number in range(WRITER_COUNT)
        )
        time.sleep(seconds)
        harness.kill(self.server)
        harness.join_all(threads)

    def _post_until_killed(
        self, number: int, rng: random.Random, entries: dict[bytes, ExpectedEntry]
    ) -> None:
        own = own_entries(entries, number)
        expected, user = self.store.expected, HttpUser(self.server.url)
        user.http.cookies.update(self.user.http.cookies)
        with suppress(httpx.HTTPError, OSError):
            while True:
                kind = rng.choice(("write", "write", "edit", "delete", "restore", "erase"))
                entry, expected_entry, path, form = plan_request(kind, number, rng, own)
                expected.begin(number, entry, expected_entry)
                response = user.post(path, form, fragment=True)
                if response.status_code == 200:
                    expected.done(number)
                else:
                    assert response.status_code == 409, (path.split("/")[-1], response.status_code)
                    expected.refused(number)
                    continue
                if expected_entry is None:
                    del own[entry]
                else:
                    own[entry] = expected_entry


def plan_request(
    kind: str, writer_number: int, rng: random.Random, own_entries: dict[bytes, ExpectedEntry]
) -> tuple[bytes, ExpectedEntry | None, str, dict[str, str]]:
    """Plan an action as a form: entry, what it will be, path, fields. Where no entry fits, a new one is written."""
    text = f"{harness.WORD} {rng.randrange(10**9)}" + " word" * rng.choice((0, 3, 30, 300))
    is_deleted = kind in ("restore", "erase")
    matching = [entry for entry, line in own_entries.items() if line.deleted == is_deleted]
    if kind == "write" or not matching:
        entry = new_id(writer_number)
        form = {"text": text, "form_token": entry.hex()}
        return entry, ExpectedEntry(text), f"/d/{day_of(entry)}/entries", form
    entry = rng.choice(matching)
    current, path = own_entries[entry], f"/e/{entry.hex()}"
    if kind == "edit":
        form = {"text": text, "revision": str(current.revision)}
        return entry, current.after_edit(text), path, form
    expected = None if kind == "erase" else current.with_deleted(deleted=kind == "delete")
    return entry, expected, f"{path}/{kind}", {}
