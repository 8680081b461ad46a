"""Twelve ways for a model server to fail: each ends in a sentence, and the journal goes on as if nothing were."""

import asyncio
import html
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from llamora.settings import UpstreamSettings
from tests.app.conftest import RunningApp, Start, Visitor, settings_for_model
from tests.llm.test_errors import own_certificate
from tests.scripted_model import Reply, ScriptedModel

DAY = "/d/2026-11-20"
SAID = "Some words that came"
SLOT_SECONDS = 60.0  # a slot that is not given back is never free

# How it fails, and whether words come first.
WAYS: dict[str, tuple[Reply, bool]] = {
    "refused": (Reply(), False),
    "dns": (Reply(), False),
    "tls": (Reply(), False),
    "401": (Reply(fault="status", status=401, body='{"error": {"message": "private"}}'), False),
    "429": (Reply(fault="status", status=429, body="private"), False),
    "500": (Reply(fault="status", status=500, body="private"), False),
    "hang before headers": (Reply(fault="hang_before_headers"), False),
    "hang in the middle": (Reply([SAID], fault="hang"), True),
    "cut in a character": (Reply([SAID], fault="cut_in_character"), True),
    "not an event stream": (Reply(fault="not_sse"), False),
    "endless": (Reply([SAID + " ", "and on "], fault="endless"), True),
    "a line of a gigabyte": (Reply([SAID], fault="giant_line", size=1 << 30), True),
}


@pytest.fixture
async def model(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ScriptedModel]:
    tls = None
    if "tls" in request.node.name:
        tls = own_certificate(tmp_path)
    async with ScriptedModel(tls=tls) as scripted:
        yield scripted


async def ended(app: RunningApp, alice: Visitor, reply: str) -> None:
    """Follow a reply to its end, and see that the journal is usable all the while."""
    following = asyncio.create_task(alice.follow(reply))
    written = 0
    while not following.done():
        assert (await alice.get(DAY)).status == 200
        if written < 3:
            await alice.write(f"Meanwhile {written}.", "2026-11-21")
            written += 1
        await asyncio.sleep(0.02)
    assert "event: done" in await following


@pytest.mark.parametrize("way", WAYS)
async def test_a_failing_model_is_a_sentence_and_nothing_else_is_lost(
    way: str, start: Start, model: ScriptedModel
) -> None:
    host = {"dns": "http://no-such-host.invalid:1234"}.get(way, model.url)
    llm = replace(
        settings_for_model(model),
        timeout_seconds=1.0,
        slots=1,
        upstream=UpstreamSettings(host=host),
    )
    app = await start(llm=llm)
    alice = await app.visitor()
    scripted, with_words = WAYS[way]
    model.script(scripted)
    entry = await alice.write("What I asked in private.")
    if way == "refused":
        await model.stop()
    answer = await alice.post(f"/e/{entry}/replies", fragment=True)
    assert answer.status == 200, answer.visible_text
    reply = answer.ids[0]
    await ended(app, alice, reply)

    page = await alice.get(DAY)
    assert page.ids == [entry, reply]
    found = re.search(r'<span class="problem">([^<]+)</span>', page.text)
    assert found is not None
    sentence = html.unescape(found[1])
    assert sentence.endswith(".")
    assert "private" not in sentence
    assert len(sentence) < 200
    assert page.text.count(SAID) == int(with_words)
    stored = await app.services.db.entries.get(app.keys(), bytes.fromhex(reply))
    assert stored.state == "failed"
    assert stored.text.startswith(SAID if with_words else "")
    assert bool(stored.text) == with_words

    # The slot is free: the next one gets its turn, and an answer where the server is well again.
    async with (
        asyncio.timeout(SLOT_SECONDS),
        app.services.model.queue.slot(app.keys().user_id, lambda _: None),
    ):
        pass
    if way not in ("refused", "dns", "tls"):
        model.script(Reply(["All is well."]))
        again = (await alice.post(f"/e/{entry}/replies", fragment=True)).ids[0]
        await ended(app, alice, again)
        assert "All is well." in (await alice.get(DAY)).text
