"""Replies under people's hands: `python -m scripts.torture.streams --actions 200 --kills 50 --workers 1`.

While replies stream, pages are reloaded, streams are followed and left, and second tabs opened, all at random moments
and on whichever worker answers. Every event must be what came so far and nothing else, the text that is kept must be
what the model sent, byte by byte, and the model must have been asked once for each reply. Then the server gets
SIGKILL in the middle of replies: what was shown half a second before, or earlier, must be there after the restart,
marked as cut short. Prints one JSON object.
"""

import argparse
import asyncio
import html
import json
import random
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import httpx

from llamora.events import EventBus
from llamora.journal.accounts import Accounts
from llamora.journal.live import INTERRUPTED
from llamora.journal.sessions import Sessions
from llamora.messages import MESSAGES
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.settings import CryptoSettings, SessionSettings
from tests.scripted_model import ModelThread, Reply
from tests.server_process import HttpUser, Server

WORDS = (
    "heron weir 雨 naïve 🪶 river don’t 120 % a—b quiet Ünter late & <slow> nothing of it".split()
)
DAY = "2026-11-20"
DURABLE_AFTER_SECONDS = 0.5  # seconds


def random_text(rng: random.Random) -> str:
    """Paragraphs without marks of Markdown: then what is shown is the text itself."""
    paragraphs = [
        " ".join(rng.choice(WORDS) for _ in range(rng.randrange(8, 40)))
        for _ in range(rng.randrange(1, 4))
    ]
    return "\n\n".join(paragraphs)


def split_randomly(text: str, rng: random.Random) -> list[str]:
    """The text cut at random places, also inside of words."""
    pieces: list[str] = []
    while text:
        size = rng.randrange(1, 14)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def visible_text(html_text: str) -> str:
    """What a person reads in a piece of a page, white space single."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", html_text)).split())


def visible_reply_text(page: str, reply: str) -> str:
    """The words of one reply on a page."""
    match = re.search(
        rf'id="r-{reply}".*?<div class="prose" hx-ignore>(.*?)</div>', page, re.DOTALL
    )
    return "" if match is None or 'class="waiting"' in match[1] else visible_text(match[1])


def read_events(
    client: httpx.Client, reply: str, until: float | None = None
) -> Iterator[tuple[float, str]]:
    """(moment, words) of each event that brings text, up to the end or to the moment `stop`."""
    data: list[str] = []
    with client.stream("GET", f"/r/{reply}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                data.append(line[6:])
            elif not line and data:
                text, data = "\n".join(data), []
                if text.startswith("<hx-partial"):
                    yield time.monotonic(), visible_reply_text(text, reply)
                elif text and "waiting" not in text:
                    yield time.monotonic(), visible_text(text)
            if until is not None and time.monotonic() >= until:
                break


def new_client(user: HttpUser) -> httpx.Client:
    """A connection of its own, which any worker may take."""
    return httpx.Client(base_url=user.url, cookies=user.http.cookies, timeout=30, trust_env=False)


def ask_for_reply(user: HttpUser, text: str) -> str:
    """Ask for a reply to a new entry, and return its id."""
    entry = user.write(text, DAY)
    response = user.post(f"/e/{entry}/replies", {}, fragment=True)
    assert response.status_code == 200, response.text
    return response.text.split("/r/")[1][:32]


def disturb(
    user: HttpUser, reply: str, rng: random.Random, actions: int, full_text: str
) -> list[str]:
    """Reload, leave and come back, at random moments; returns what was not a beginning of the whole."""
    errors: list[str] = []

    def act(kind: str, wait: float, follow_seconds: float) -> None:
        time.sleep(wait)
        with new_client(user) as client:
            if kind == "reload":
                texts = [visible_reply_text(client.get(f"/d/{DAY}").text, reply)]
            else:
                texts = [
                    words
                    for _, words in read_events(client, reply, time.monotonic() + follow_seconds)
                ]
        errors.extend(f"{kind}: {words!r}" for words in texts if not full_text.startswith(words))
        if any(len(later) < len(earlier) for earlier, later in pairwise(texts)):
            errors.append(f"{kind}: it shrank")

    threads = [
        threading.Thread(
            target=act,
            args=(
                rng.choice(["reload", "close", "tab"]),
                rng.uniform(0, 0.9),
                rng.uniform(0.01, 1.2),
            ),
        )
        for _ in range(actions)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


async def read_replies(server: Server, user: HttpUser) -> dict[str, Entry]:
    """All replies as the store holds them, opened with the writer's passphrase beside the running server."""
    db = await LocalDB.open(server.data / "llamora.sqlite3")
    sessions = Sessions(db, SessionSettings(), b"x" * 32, EventBus())
    accounts = Accounts(db, CryptoSettings(kdf_target_ms=0), sessions)
    _, keys = await accounts.sign_in(user.name, user.passphrase)
    entries = await db.entries.get_many(keys, list(await db.entries.revisions(keys.user_id)))
    await db.close()
    return {entry.id.hex(): entry for entry in entries if entry.role == "reply"}


def torture(
    actions: int, kills: int, workers: int, folder: Path, cache: Path, seed: int
) -> dict[str, object]:
    """Run all of it."""
    rng = random.Random(seed)
    model = ModelThread()
    env = {**model.env, "LLAMORA_SERVER__WORKERS": str(workers), "LLAMORA_LLM__SLOTS": "4"}
    server = Server(folder / "streams", cache, mode="prod", env=env).start()
    user = HttpUser(server.url).register()
    actions_done, errors, texts_sent = 0, list[str](), dict[str, str]()
    while actions_done < actions:
        text = random_text(rng)
        count = min(5, actions - actions_done)
        model.model.script(Reply(split_randomly(text, rng), piece_delay=0.015))
        reply = ask_for_reply(user, f"Number {actions_done}.")
        errors += disturb(user, reply, rng, count, " ".join(text.split()))
        with new_client(user) as client:
            last_text = list(read_events(client, reply))[-1][1]
        errors += [] if last_text == " ".join(text.split()) else [f"the last event: {last_text!r}"]
        texts_sent[reply] = text
        actions_done += count
    stored_replies = asyncio.run(read_replies(server, user)) if texts_sent else {}
    different_replies = [
        reply
        for reply, text in texts_sent.items()
        if stored_replies[reply].text.encode() != text.encode()
    ]
    figures: dict[str, object] = {
        "workers": workers,
        "actions": actions_done,
        "replies": len(texts_sent),
        "not_a_beginning": len(errors),
        "not_byte_equal": len(different_replies),
        "model_calls": len(model.model.chat_requests),
        "seed": seed,
    }
    if kills:
        figures |= run_kills(server, user, model, rng, kills)
    server.stop()
    model.close()
    if errors:
        print("\n".join(errors[:5]), file=sys.stderr)
    return figures


def run_kills(
    server: Server, user: HttpUser, model: ModelThread, rng: random.Random, kills: int
) -> dict[str, object]:
    """Kill the server while a reply streams; count what should be there and is not."""
    lost, unmarked, oldest_loss, still_streaming = 0, 0, 0.0, 0
    for number in range(kills):
        text = random_text(rng) * 4
        pause = rng.choice([0.01, 0.05, 0.2, 0.7])
        # Not lined up: where the kill comes before the model was asked, the next reply would be given this one's text.
        model.model.default_reply = Reply(split_randomly(text, rng), piece_delay=pause)
        reply = ask_for_reply(user, f"Kill {number}.")
        events: list[tuple[float, str]] = []

        def follow(reply: str = reply, events: list[tuple[float, str]] = events) -> None:
            with suppress(httpx.HTTPError), new_client(user) as client:
                for event in read_events(client, reply):
                    events.append(event)  # noqa: PERF402 -- one by one, since the last one never comes

        follower = threading.Thread(target=follow)
        follower.start()
        time.sleep(rng.uniform(0.1, 2.2))
        assert server.process is not None
        server.process.kill()
        at = time.monotonic()
        server.process.wait()
        follower.join()
        server.start()
        user.http.cookies.clear()
        assert user.sign_in().status_code == 303
        page = user.get(f"/d/{DAY}").text
        stored_text = visible_reply_text(page, reply)
        durable_text = max(
            (words for moment, words in events if moment <= at - DURABLE_AFTER_SECONDS),
            key=len,
            default="",
        )
        lost += not stored_text.startswith(durable_text)
        article = page.split(f'id="e-{reply}"')[1].split("</article>")[0]
        is_finished = stored_text == " ".join(text.split())
        unmarked += not is_finished and MESSAGES[INTERRUPTED.code] not in article
        still_streaming += "data-stop" in article
        loss_ages = [at - moment for moment, words in events if not stored_text.startswith(words)]
        oldest_loss = max([oldest_loss, *loss_ages])
    reply_after = ask_for_reply(user, "After it all.")
    with new_client(user) as client:
        has_ended = bool(list(read_events(client, reply_after)))
    return {
        "kills": kills,
        "lost_what_was_promised": lost,
        "not_marked_as_cut_short": unmarked + still_streaming,
        "oldest_lost_word_seconds": round(oldest_loss, 3),
        "asks_again": has_ended,
    }


def main() -> int:
    """Run, print, and fail when a word was lost, repeated or altered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actions", type=int, default=200)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="streams-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        result = torture(
            options.actions, options.kills, options.workers, folder, folder / "cache", options.seed
        )
    print(json.dumps(result))
    failure_keys = (
        "not_a_beginning",
        "not_byte_equal",
        "lost_what_was_promised",
        "not_marked_as_cut_short",
    )
    return int(any(result.get(name) for name in failure_keys))


if __name__ == "__main__":
    sys.exit(main())
