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

from llamora.journal.accounts import Accounts
from llamora.journal.replies import INTERRUPTED
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.settings import CryptoSettings, SessionSettings
from tests.scripted_model import ModelThread, Reply
from tests.server_process import Server, Writer

WORDS = "heron weir 雨 naïve 🪶 river don’t 120 % a—b quiet Ünter late & <slow> nothing of it".split()
DAY = "2026-11-20"
PROMISE = 0.5  # seconds


def some_text(rng: random.Random) -> str:
    """Paragraphs without marks of Markdown: then what is shown is the text itself."""
    paragraphs = [" ".join(rng.choice(WORDS) for _ in range(rng.randrange(8, 40))) for _ in range(rng.randrange(1, 4))]
    return "\n\n".join(paragraphs)


def in_pieces(text: str, rng: random.Random) -> list[str]:
    """The text cut at random places, also inside of words."""
    pieces: list[str] = []
    while text:
        size = rng.randrange(1, 14)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def shown(markup: str) -> str:
    """What a person reads in a piece of a page, white space single."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", markup)).split())


def of_reply(page: str, reply: str) -> str:
    """The words of one reply on a page."""
    found = re.search(rf'id="r-{reply}".*?<div class="prose" hx-ignore>(.*?)</div>', page, re.DOTALL)
    return "" if found is None or 'class="waiting"' in found[1] else shown(found[1])


def events_of(client: httpx.Client, reply: str, stop: float | None = None) -> Iterator[tuple[float, str]]:
    """(moment, words) of each event that brings text, up to the end or to the moment `stop`."""
    data: list[str] = []
    with client.stream("GET", f"/r/{reply}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                data.append(line[6:])
            elif not line and data:
                text, data = "\n".join(data), []
                if text.startswith("<hx-partial"):
                    yield time.monotonic(), of_reply(text, reply)
                elif text and "waiting" not in text:
                    yield time.monotonic(), shown(text)
            if stop is not None and time.monotonic() >= stop:
                break


def another(writer: Writer) -> httpx.Client:
    """A connection of its own, which any worker may take."""
    return httpx.Client(base_url=writer.url, cookies=writer.http.cookies, timeout=30, trust_env=False)


def ask(writer: Writer, text: str) -> str:
    """Ask for a reply to a new entry, and return its id."""
    entry = writer.write(text, DAY)
    answer = writer.post(f"/e/{entry}/replies", {}, fragment=True)
    assert answer.status_code == 200, answer.text
    return answer.text.split("/r/")[1][:32]


def disturb(writer: Writer, reply: str, rng: random.Random, actions: int, whole: str) -> list[str]:
    """Reload, leave and come back, at random moments; returns what was not a beginning of the whole."""
    wrong: list[str] = []

    def act(kind: str, wait: float, stay: float) -> None:
        time.sleep(wait)
        with another(writer) as client:
            if kind == "reload":
                seen = [of_reply(client.get(f"/d/{DAY}").text, reply)]
            else:
                seen = [words for _, words in events_of(client, reply, time.monotonic() + stay)]
        wrong.extend(f"{kind}: {words!r}" for words in seen if not whole.startswith(words))
        if any(len(later) < len(earlier) for earlier, later in pairwise(seen)):
            wrong.append(f"{kind}: it shrank")

    threads = [
        threading.Thread(
            target=act, args=(rng.choice(["reload", "close", "tab"]), rng.uniform(0, 0.9), rng.uniform(0.01, 1.2))
        )
        for _ in range(actions)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


async def stored(server: Server, writer: Writer) -> dict[str, Entry]:
    """All replies as the store holds them, opened with the writer's passphrase beside the running server."""
    db = await LocalDB.open(server.data / "llamora.sqlite3")
    accounts = Accounts(db, CryptoSettings(kdf_target_ms=0), SessionSettings(), b"x" * 32, lambda _: None)
    _, keys = await accounts.sign_in(writer.name, writer.passphrase)
    entries = await db.entries.get_many(keys, list(await db.entries.revisions(keys.user_id)))
    await db.close()
    return {entry.id.hex(): entry for entry in entries if entry.role == "reply"}


def torture(actions: int, kills: int, workers: int, folder: Path, cache: Path, seed: int) -> dict[str, object]:
    """Run all of it."""
    rng = random.Random(seed)
    model = ModelThread()
    env = {**model.env, "LLAMORA_SERVER__WORKERS": str(workers), "LLAMORA_LLM__SLOTS": "4"}
    server = Server(folder / "streams", cache, mode="prod", env=env).start()
    writer = Writer(server.url).register()
    done, wrong, sent = 0, list[str](), dict[str, str]()
    while done < actions:
        text = some_text(rng)
        count = min(5, actions - done)
        model.model.script(Reply(in_pieces(text, rng), piece_delay=0.015))
        reply = ask(writer, f"Number {done}.")
        wrong += disturb(writer, reply, rng, count, " ".join(text.split()))
        with another(writer) as client:
            last = list(events_of(client, reply))[-1][1]
        wrong += [] if last == " ".join(text.split()) else [f"the last event: {last!r}"]
        sent[reply] = text
        done += count
    kept = asyncio.run(stored(server, writer)) if sent else {}
    differing = [reply for reply, text in sent.items() if kept[reply].text.encode() != text.encode()]
    figures: dict[str, object] = {
        "workers": workers,
        "actions": done,
        "replies": len(sent),
        "not_a_beginning": len(wrong),
        "not_byte_equal": len(differing),
        "model_calls": len(model.model.chat_requests),
        "seed": seed,
    }
    if kills:
        figures |= killed(server, writer, model, rng, kills)
    server.stop()
    model.close()
    if wrong:
        print("\n".join(wrong[:5]), file=sys.stderr)
    return figures


def killed(server: Server, writer: Writer, model: ModelThread, rng: random.Random, kills: int) -> dict[str, object]:
    """Kill the server while a reply streams; count what should be there and is not."""
    lost, unmarked, worst, withheld = 0, 0, 0.0, 0
    for number in range(kills):
        text = some_text(rng) * 4
        pause = rng.choice([0.01, 0.05, 0.2, 0.7])
        # Not lined up: where the kill comes before the model was asked, the next reply would be given this one's text.
        model.model.default_reply = Reply(in_pieces(text, rng), piece_delay=pause)
        reply = ask(writer, f"Kill {number}.")
        seen: list[tuple[float, str]] = []

        def follow(reply: str = reply, seen: list[tuple[float, str]] = seen) -> None:
            with suppress(httpx.HTTPError), another(writer) as client:
                for event in events_of(client, reply):
                    seen.append(event)  # noqa: PERF402 -- one by one, since the last one never comes

        follower = threading.Thread(target=follow)
        follower.start()
        time.sleep(rng.uniform(0.1, 2.2))
        assert server.process is not None
        server.process.kill()
        at = time.monotonic()
        server.process.wait()
        follower.join()
        server.start()
        writer.http.cookies.clear()
        assert writer.sign_in().status_code == 303
        page = writer.get(f"/d/{DAY}").text
        there = of_reply(page, reply)
        promised = max((words for moment, words in seen if moment <= at - PROMISE), key=len, default="")
        lost += not there.startswith(promised)
        article = page.split(f'id="e-{reply}"')[1].split("</article>")[0]
        finished = there == " ".join(text.split())
        unmarked += not finished and INTERRUPTED not in article
        withheld += "data-stop" in article
        missing = [at - moment for moment, words in seen if not there.startswith(words)]
        worst = max([worst, *missing])
    again = ask(writer, "After it all.")
    with another(writer) as client:
        ended = bool(list(events_of(client, again)))
    return {
        "kills": kills,
        "lost_what_was_promised": lost,
        "not_marked_as_cut_short": unmarked + withheld,
        "oldest_lost_word_seconds": round(worst, 3),
        "asks_again": ended,
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
        result = torture(options.actions, options.kills, options.workers, folder, folder / "cache", options.seed)
    print(json.dumps(result))
    bad = ("not_a_beginning", "not_byte_equal", "lost_what_was_promised", "not_marked_as_cut_short")
    return int(any(result.get(name) for name in bad))


if __name__ == "__main__":
    sys.exit(main())
