"""Whatever is written, changed, taken away and asked for: what is found is what there is, and nothing else."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from llamora.persistence.entries import Entry
from llamora.search.embedder import Embedder
from llamora.search.query import MAX_QUERY
from llamora.settings import EmbeddingSettings
from llamora.text import normalize
from llamora.vault.keys import Keyring
from tests.search.conftest import TODAY, Desk

Desks = Callable[..., Awaitable[Desk]]

VOCABULARY = ["heron", "otter", "Straße", "天気", "café", "weir", "שלום", "😀 moss", "running"]
STRANGE = [
    "",
    " ",
    '"',
    '""',
    "-",
    "- -",
    "*",
    "-*",
    ":",
    "by:",
    "by:me",
    "by:reply",
    "-by:me",
    "tag:",
    'tag:""',
    "tag:nothing",
    "in:",
    "in:2024-13",
    "on:today",
    "before:0001-01-01",
    "after:9999-12-31",
    "before:9999-99-99",
    "by:me by:reply",
    "in:march in:april",
    '"heron" -heron',
    "-heron",
    "-heron -otter -weir",
    "?!…—",
    "()[]{}^~+|&",
    "AND OR NOT NEAR",
    "heron NEAR weir",
    "words:heron",
    "body : heron",
    "heron*",
    "h*",
    "😀",
    "👩‍👩‍👧",
    "שלום",
    "\u202eheron\u202c",
    "天気",
    "今日は天気",
    "天",
    "q̶̢̛u̷͠e",
    "e" + "\u0301" * 500,
    "\u0301",
    "\x00",
    "\ud800",
    "\n",
    "heron " * 1_700,
    "x" * 10_000,
    '"' * 9_999,
    "-" * 10_000,
    "in:a " * 2_000,
    "in:2024 " * 1_250,
    "天" * 10_000,
    "\u0301" * 10_000,
    "(" * 10_000,
]


@pytest.mark.parametrize("entries", [0, 3])
async def test_no_query_is_an_error(desk: Desk, entries: int) -> None:
    for text in ("the heron by the weir, شكرا", "今日は良い天気ですね 😀 \u0301", "שלום Straße")[
        :entries
    ]:
        await desk.write(text)
    await desk.write("heron of another", keys=desk.other_keys)
    await desk.wait_ready()
    mine = set((await desk.db.entries.revisions(desk.keys.user_id)).keys())
    for query in STRANGE:
        for typing in (False, True):
            found = await desk.service.search(desk.keys, query, today=TODAY, is_typing=typing)
            assert {hit.entry_id for hit in found.hits} <= mine, query[:40]
            assert found.total == len(found.hits), query[:40]
            assert found.is_complete
            is_cut = any(hint.code == "query_letters_cut" for hint in found.hints)
            assert is_cut == (len(normalize(query).strip()) > MAX_QUERY), query[:40]


@dataclass
class Known:
    """What a writer has, as a test knows it."""

    keys: Keyring
    entries: dict[bytes, Entry] = field(default_factory=dict[bytes, Entry])
    gone: set[bytes] = field(default_factory=set[bytes])
    traces: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])


async def change(desk: Desk, known: Known, dice: Random) -> str:
    """Do one thing that writers do, and return its name."""
    text = " ".join(dice.choices(VOCABULARY, k=dice.randint(1, 12)))
    living = [entry for entry in known.entries.values() if entry.deleted is None]
    act = dice.choice(
        [
            "write",
            "write",
            "reply",
            "edit",
            "edit",
            "keep",
            "delete",
            "bring back",
            "erase",
            "trace",
        ]
    )
    if act in ("write", "reply") or not living:
        day = TODAY - timedelta(days=dice.randint(0, 900))
        made = await desk.write(text, day, "reply" if act == "reply" else "me", known.keys)
        known.entries[made.id] = made
        return act
    entry = dice.choice(living)
    if act == "edit":
        entry = replace(entry, text=text)
    elif act == "keep":  # from the model, not from the writer
        entry = replace(entry, withheld=not entry.withheld)
    elif act == "delete":
        entry = replace(entry, deleted=datetime.now(UTC))
    elif act == "bring back":
        buried = [each for each in known.entries.values() if each.deleted is not None]
        entry = replace(dice.choice(buried or [entry]), deleted=None)
    elif act == "erase":
        await desk.db.entries.erase(known.keys, [entry.id])
        if dice.random() < 0.5:  # by this process, or by another that tells nobody
            desk.service.drop(known.keys.user_id, [entry.id])
        known.gone.add(entry.id)
        del known.entries[entry.id]
        known.traces.pop(entry.id, None)
        return act
    else:
        if entry.id in known.traces:
            await desk.db.tags.remove(known.keys, entry.id, known.traces.pop(entry.id))
        else:
            known.traces[entry.id] = await desk.db.tags.add(known.keys, entry.id, "Harbour")
        return act
    known.entries[entry.id] = changed = await desk.db.entries.update(known.keys, entry)
    if dice.random() < 0.5:
        desk.service.put(known.keys, changed)
    return act


async def noticed(desk: Desk, keys: Keyring) -> None:
    """Ask until the index is as new as the store: a search waits for what others wrote, but for a moment only."""
    async with asyncio.timeout(60):
        while True:
            await desk.search("anything", keys)
            await desk.service.wait_until_idle(keys.user_id)
            if desk.service._states[keys.user_id].search_counter == await desk.db.search_version():
                return


async def hold(desk: Desk, known: Known, done: list[str]) -> None:
    """What is found is what there is."""
    living = {entry.id: entry for entry in known.entries.values() if entry.deleted is None}
    for word in VOCABULARY:
        term = word.split()[-1]
        found = await desk.search(f'"{term}"', known.keys, limit=1000)
        wanted = {entry.id for entry in living.values() if term in entry.text}
        if not any(hint.code.startswith("query_phrases_relaxed") for hint in found.hints):
            assert {hit.entry_id for hit in found.hits} == wanted, (term, done)
        else:
            assert not wanted, (term, done)
        for hit in found.hits:
            shown = "".join(text for text, _ in hit.snippet).strip("…")
            assert shown in " ".join(living[hit.entry_id].text.split()), done
    for query, wanted in (
        ("by:me", {entry.id for entry in living.values() if entry.role == "me"}),
        ("by:reply", {entry.id for entry in living.values() if entry.role == "reply"}),
        ("tag:harbour", set(known.traces) & set(living)),
        ("in:2025", {entry.id for entry in living.values() if entry.day.year == 2025}),
        ("on:0999-01-01", set[bytes]()),  # a day without entries
    ):
        found = await desk.search(query, known.keys, limit=1000)
        assert {hit.entry_id for hit in found.hits} == wanted, (query, done)
        assert found.total == len(wanted)


@pytest.mark.parametrize("meaning", [False, True])
@pytest.mark.parametrize("seed", range(4))
async def test_what_is_found_is_what_there_is(
    desks: Desks, tmp_path: Path, seed: int, meaning: bool
) -> None:
    """Two writers, one store, everything that may happen in any order: snapshots, locks and unlocks between."""
    desk = await (
        desks() if meaning else desks(Embedder(EmbeddingSettings(enabled=False), tmp_path))
    )
    dice = Random(seed)
    writers = [Known(desk.keys), Known(desk.other_keys)]
    for known in writers:
        await desk.wait_ready(known.keys)
    done: list[str] = []
    for _ in range(8):
        for _ in range(dice.randint(1, 8)):
            done += [await change(desk, dice.choice(writers), dice)]
        for known in writers:
            await noticed(desk, known.keys)
            await hold(desk, known, done)
            if dice.random() < 0.4:
                done.append(f"saved {await desk.service.save_snapshot(known.keys.user_id)}")
            if dice.random() < 0.4:
                desk.service.lock(known.keys.user_id)
                await desk.wait_ready(known.keys)
                done.append("locked")
                await hold(desk, known, done)
    for known in writers:
        stored = await desk.db.vectors.get(known.keys, [*known.gone, *known.entries])
        assert not known.gone & {vectors.entry_id for vectors in stored}
        user = desk.service._states[known.keys.user_id]
        assert not known.gone & set(user.index.revisions)
        assert not known.gone & set(user.revisions)


async def test_what_is_erased_is_in_no_byte_of_the_index_or_of_a_later_snapshot(desk: Desk) -> None:
    word = f"zq{secrets.token_hex(8)}"
    await desk.write("the heron by the weir")
    erased = await desk.write(f"the heron said {word}")
    reply = await desk.write(f"So {word} it was", role="reply")
    await desk.wait_ready()
    user = desk.service._states[desk.keys.user_id]

    def held() -> bool:
        sections = [array.tobytes() for _, array in user.index.iter_sections()]
        image = user.index._fulltext._db.serialize()
        return any(word.encode() in part or erased.id in part for part in (*sections, image))

    assert await user.run_in_thread(held)
    await desk.db.entries.erase(desk.keys, [erased.id, reply.id])
    desk.service.drop(desk.keys.user_id, [erased.id, reply.id])
    await desk.service.wait_until_idle(desk.keys.user_id)
    assert await desk.service.save_snapshot(desk.keys.user_id)
    assert not await user.run_in_thread(held)
    # The same from an index that a snapshot was taken over into.
    gone = await desk.write(f"once more {word}")
    await desk.service.wait_until_idle(desk.keys.user_id)
    assert await desk.service.save_snapshot(desk.keys.user_id)
    desk.service.lock(desk.keys.user_id)
    await desk.wait_ready()
    user, erased = desk.service._states[desk.keys.user_id], gone
    assert await user.run_in_thread(held)
    await desk.db.entries.erase(desk.keys, [gone.id])
    desk.service.drop(desk.keys.user_id, [gone.id])
    await desk.service.wait_until_idle(desk.keys.user_id)
    assert await desk.service.save_snapshot(desk.keys.user_id)
    assert not await user.run_in_thread(held)
