"""Disturb replies while they stream: `python -m scripts.torture.streams --actions 200 --kills 50 --workers 1`.

While replies stream, pages are reloaded, streams are followed and left, and second tabs opened, all at random moments
and on whichever worker answers. Every event must be what came so far and nothing else, the text that is kept must be
what the model sent, byte by byte, and the model must have been asked once for each reply. Then the server gets
SIGKILL in the middle of replies: what was shown half a second before, or earlier, must be there after the restart,
marked as cut short. Prints one JSON object.
"""

import asyncio
import html
import random
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import httpx

from llamora.journal.live import INTERRUPTED
from llamora.messages import MESSAGES
from llamora.persistence.entries import Entry
from scripts.command import run
from scripts.torture.harness import any_of, beside, join_all, kill, run_threads, sign_in_again
from tests.scripted_model import ModelThread, Reply
from tests.server_process import HttpUser, Server

WORDS = (
    "heron weir 雨 naïve 🪶 river don’t 120 % a—b quiet Ünter late & <slow> nothing of it".split()
)
DAY = "2026-11-20"
DURABLE_AFTER_SECONDS = 0.5

Events = list[tuple[float, str]]
"""(moment, words shown)"""


def random_text(rng: random.Random) -> str:
    """Return paragraphs without marks of Markdown: then what is shown is the text itself."""
    paragraphs = [
        " ".join(rng.choice(WORDS) for _ in range(rng.randrange(8, 40)))
        for _ in range(rng.randrange(1, 4))
    ]
    return "\n\n".join(paragraphs)


def split_randomly(text: str, rng: random.Random) -> list[str]:
    """Cut the text at random places, also inside of words."""
    pieces: list[str] = []
    while text:
        size = rng.randrange(1, 14)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def visible_text(html_text: str) -> str:
    """Return what a person reads in a piece of a page, white space single."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", html_text)).split())


def visible_reply_text(page: str, reply: str) -> str:
    """Return the words of one reply on a page."""
    match = re.search(
        rf'id="r-{reply}".*?<div class="prose" hx-ignore>(.*?)</div>', page, re.DOTALL
    )
    return "" if match is None or 'class="waiting"' in match[1] else visible_text(match[1])


def read_events(
    client: httpx.Client, reply: str, until: float | None = None
) -> Iterator[tuple[float, str]]:
    """Yield (moment, words) of each event that brings text, up to the end or to the moment `until`."""
    data: list[str] = []
    name = ""
    with client.stream("GET", f"/session/events?reply={reply}") as stream:
        for line in stream.iter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data.append(line[6:])
            elif not line and data:
                text, data = "\n".join(data), []
                if name == "done":
                    yield time.monotonic(), visible_reply_text(text, reply)
                    break
                if name == "reply" and 'class="waiting"' not in text:
                    yield time.monotonic(), visible_text(text.replace("> .prose", ""))
            if until is not None and time.monotonic() >= until:
                break


def new_client(user: HttpUser) -> httpx.Client:
    """Open a connection of its own, which any worker may take."""
    return httpx.Client(base_url=user.url, cookies=user.http.cookies, timeout=30, trust_env=False)


def ask_for_reply(user: HttpUser, text: str) -> str:
    """Ask for a reply to a new entry, and return its id."""
    return user.ask(user.write(text, DAY))


def disturb(
    user: HttpUser, reply: str, rng: random.Random, actions: int, full_text: str
) -> list[str]:
    """Reload, leave and come back, at random moments; return what was not a beginning of the whole."""
    errors: list[str] = []

    def act(kind: str, wait: float, follow_seconds: float) -> None:
        time.sleep(wait)
        with new_client(user) as client:
            if kind == "reload":
                texts = [visible_reply_text(client.get(f"/d/{DAY}").text, reply)]
            else:
                events = read_events(client, reply, time.monotonic() + follow_seconds)
                texts = [words for _, words in events]
        errors.extend(f"{kind}: {words!r}" for words in texts if not full_text.startswith(words))
        if any(len(later) < len(earlier) for earlier, later in pairwise(texts)):
            errors.append(f"{kind}: it shrank")

    def random_act() -> partial[None]:
        kind = rng.choice(["reload", "close", "tab"])
        return partial(act, kind, rng.uniform(0, 0.9), rng.uniform(0.01, 1.2))

    join_all(run_threads([random_act() for _ in range(actions)]))
    return errors


async def _read_replies(server: Server, user: HttpUser) -> dict[str, Entry]:
    """All replies as the store holds them."""
    async with beside(server, user) as (db, keys):
        entries = await db.entries.get_many(keys, list(await db.entries.revisions(keys.user_id)))
    return {entry.id.hex(): entry for entry in entries if entry.role == "reply"}


def _run_actions(
    server: Server, user: HttpUser, model: ModelThread, rng: random.Random, actions: int
) -> dict[str, object]:
    """Disturb one reply after the other; compare what was shown and stored with what was sent."""
    done, errors, sent = 0, list[str](), dict[str, str]()
    while done < actions:
        text = random_text(rng)
        shown, count = " ".join(text.split()), min(5, actions - done)
        model.model.script(Reply(split_randomly(text, rng), piece_delay=0.015))
        reply = ask_for_reply(user, f"Number {done}.")
        errors += disturb(user, reply, rng, count, shown)
        with new_client(user) as client:
            last_text = list(read_events(client, reply))[-1][1]
        errors += [] if last_text == shown else [f"the last event: {last_text!r}"]
        sent[reply] = text
        done += count
    stored = asyncio.run(_read_replies(server, user)) if sent else {}
    if errors:
        print("\n".join(errors[:5]), file=sys.stderr)
    return {
        "actions": done,
        "replies": len(sent),
        "not_a_beginning": len(errors),
        "not_byte_equal": sum(stored[reply].text != text for reply, text in sent.items()),
        "model_calls": len(model.model.chat_requests),
    }


@dataclass
class Losses:
    """Count what should be there after a kill and is not."""

    promised: int = 0
    unmarked: int = 0
    oldest_seconds: float = 0.0

    def add(self, page: str, reply: str, full_text: str, events: Events, killed_at: float) -> None:
        """Look at the page of a reply whose events came until the server was killed."""
        stored = visible_reply_text(page, reply)
        durable_at = killed_at - DURABLE_AFTER_SECONDS
        durable = [words for moment, words in events if moment <= durable_at]
        self.promised += not stored.startswith(max(durable, key=len, default=""))
        article = page.split(f'id="e-{reply}"')[1].split("</article>", maxsplit=1)[0]
        is_finished = stored == " ".join(full_text.split())
        self.unmarked += not is_finished and MESSAGES[INTERRUPTED.code] not in article
        self.unmarked += "data-stop" in article
        ages = [killed_at - moment for moment, words in events if not stored.startswith(words)]
        self.oldest_seconds = max([self.oldest_seconds, *ages])


def _follow(user: HttpUser, reply: str, events: Events) -> None:
    with suppress(httpx.HTTPError), new_client(user) as client:
        for event in read_events(client, reply):
            events.append(event)


def _run_kills(
    server: Server, user: HttpUser, model: ModelThread, rng: random.Random, kills: int
) -> dict[str, object]:
    """Kill the server while a reply streams."""
    losses = Losses()
    for number in range(kills):
        text, events = random_text(rng) * 4, Events()
        # Not lined up: where the kill comes before the model was asked, the next reply would be given this one's text.
        pieces, pause = split_randomly(text, rng), rng.choice([0.01, 0.05, 0.2, 0.7])
        model.model.default_reply = Reply(pieces, piece_delay=pause)
        reply = ask_for_reply(user, f"Kill {number}.")
        follower = threading.Thread(target=_follow, args=(user, reply, events))
        follower.start()
        time.sleep(rng.uniform(0.1, 2.2))
        killed_at = time.monotonic()
        kill(server)
        follower.join()
        sign_in_again(server, user)
        losses.add(user.get(f"/d/{DAY}").text, reply, text, events, killed_at)
    reply_after = ask_for_reply(user, "After it all.")
    with new_client(user) as client:
        has_ended = bool(list(read_events(client, reply_after)))
    return {
        "kills": kills,
        "lost_what_was_promised": losses.promised,
        "not_marked_as_cut_short": losses.unmarked,
        "oldest_lost_word_seconds": round(losses.oldest_seconds, 3),
        "asks_again": has_ended,
    }


def torture(
    folder: Path, actions: int, kills: int, workers: int, seed: int, cache: Path | None = None
) -> dict[str, object]:
    """Run all of it."""
    rng = random.Random(seed)
    with closing(ModelThread()) as model:
        env = {**model.env, "LLAMORA_SERVER__WORKERS": str(workers), "LLAMORA_LLM__SLOTS": "4"}
        server = Server(folder / "streams", cache or folder / "cache", mode="prod", env=env).start()
        user = HttpUser(server.url).register()
        figures = {"workers": workers, **_run_actions(server, user, model, rng, actions)}
        figures["seed"] = seed
        if kills:
            figures |= _run_kills(server, user, model, rng, kills)
        server.stop()
    return figures


FAILURES = (
    *("not_a_beginning", "not_byte_equal"),
    *("lost_what_was_promised", "not_marked_as_cut_short"),
)

if __name__ == "__main__":
    failed = any_of(*FAILURES)
    sys.exit(run(torture, failed=failed, actions=200, kills=50, workers=1, seed=1))
