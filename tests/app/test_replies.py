"""Replies over HTTP: asked for, followed as events, stopped; the page shows them as they stand."""

import asyncio
import html
import re
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from llamora.errors import Notice
from llamora.llm.embedded import EmbeddedServer
from llamora.llm.model import BUILT_IN
from llamora.persistence.entries import BUILT_IN_MODEL, Entry
from llamora.settings import LlmSettings
from llamora.vault.keys import Keyring
from tests.app.conftest import PageResponse, RunningApp, Start, Visitor, settings_for_model
from tests.scripted_model import Reply, ScriptedModel

DAY = "/d/2026-11-20"


@pytest.fixture
async def app(start: Start, model: ScriptedModel) -> RunningApp:
    return await start(llm=settings_for_model(model))


async def asked(alice: Visitor, text: str = "What now?") -> tuple[str, str]:
    """Ids of a new entry and of the reply to it, which has begun."""
    entry = await alice.write(text)
    answer = await alice.post(f"/e/{entry}/replies", fragment=True)
    assert answer.status == 200, answer.text
    return entry, answer.ids[0]


async def until_shown(alice: Visitor, words: str) -> PageResponse:
    """The day's page, once it holds these words."""
    while words not in (page := await alice.get(DAY)).text:  # noqa: ASYNC110 -- a person loads the page again
        await asyncio.sleep(0.01)
    return page


def events(stream: str) -> list[tuple[str, str]]:
    """(name, data) of each event."""
    found = []
    for block in stream.split("\n\n")[:-1]:
        fields = [line.partition(": ") for line in block.split("\n")]
        name = "".join(value for key, _, value in fields if key == "event")
        found.append((name, "\n".join(value for key, _, value in fields if key == "data")))
    return found


async def test_a_reply_begins_empty_and_is_followed_to_its_end(
    app: RunningApp, model: ScriptedModel
) -> None:
    shown = asyncio.Event()
    model.script(Reply(["A **quiet** ", "day."], gates={0: shown}))
    alice = await app.visitor()
    entry = await alice.write("I sat by the river.")
    begun = await alice.post(f"/e/{entry}/replies", fragment=True)
    reply = begun.ids[0]
    assert f'id="r-{reply}" aria-busy="true" data-streams="0"' in begun.text
    assert "Reading your page…" in begun.visible_text
    shown.set()
    *growing, final = events(await alice.follow(reply))
    assert final[0] == "done"
    assert all(name == "reply" for name, _ in growing)
    assert "<strong>quiet</strong> day." in final[1]
    assert "data-streams" not in final[1]
    assert f'hx-target="#e-{reply}"' in final[1]
    page = await alice.get(DAY)
    assert page.ids == [entry, reply]
    assert "A quiet day. scripted" in page.visible_text.replace("quiet </strong>", "quiet")


async def test_another_reply_is_read_as_it_comes_also_beside_a_preferred_one(
    app: RunningApp, model: ScriptedModel
) -> None:
    model.script(Reply(["The first."]))
    alice = await app.visitor()
    entry, first = await asked(alice)
    await until_shown(alice, "The first.")
    await alice.post(f"/r/{first}/prefer", {"preferred": "yes"})
    come = asyncio.Event()
    model.script(Reply(["The second."], gates={0: come}))
    begun = await alice.post(f"/e/{entry}/replies", fragment=True)
    for page in (begun, await alice.get(DAY)):
        assert "set aside" not in page.visible_text
    come.set()
    *_, final = events(await alice.follow(begun.ids[0]))
    assert "The second." in final[1]
    assert "set aside" not in final[1]
    assert (await alice.get(DAY)).visible_text.count("set aside") == 1


async def test_a_model_that_thinks_is_said_to(app: RunningApp, model: ScriptedModel) -> None:
    done = asyncio.Event()
    model.script(Reply(["<think>The heron", " stands.</think>", "It stood."], gates={1: done}))
    alice = await app.visitor()
    _, reply = await asked(alice)
    page = await until_shown(alice, "The model is thinking…")
    assert "heron" not in page.visible_text
    done.set()
    *_, final = events(await alice.follow(reply))
    assert "It stood." in final[1]
    assert "thinking" not in final[1]


async def test_without_htmx_it_leads_to_the_page(app: RunningApp, model: ScriptedModel) -> None:
    alice = await app.visitor()
    entry = await alice.write("What now?")
    answer = await alice.post(f"/e/{entry}/replies")
    assert answer.status == 303
    reply = answer.location.removeprefix(f"{DAY}#e-")
    await until_shown(alice, "It was a quiet day.")
    assert (await alice.get(DAY)).ids == [entry, reply]


async def test_events_hold_all_that_came_so_that_nothing_is_lost_or_repeated(
    app: RunningApp, model: ScriptedModel
) -> None:
    middle, end = asyncio.Event(), asyncio.Event()
    model.script(Reply(["One ", "two ", "three."], gates={1: middle, 3: end}))
    alice = await app.visitor()
    _, reply = await asked(alice)
    await until_shown(alice, "<p>One</p>")
    first, second = [asyncio.create_task(alice.follow(reply)) for _ in range(2)]
    middle.set()
    page = await until_shown(alice, "<p>One two three.</p>")
    assert page.text.count("One") == 1
    third = asyncio.create_task(alice.follow(reply))
    end.set()
    for task in (first, second, third):
        *growing, final = events(await task)
        assert final[1].count("One two three.") == 1
        assert final[0] == "done"
        for _, data in growing:
            words = re.sub('^<hx-partial[^"]+"[^"]+"[^"]+"[^"]+">|<[^>]+>', "", data)
            assert "One two three.".startswith(words.strip())
    late = events(await alice.follow(reply))
    assert [name for name, _ in late] == ["done"]
    assert len(model.chat_requests) == 1


async def test_a_text_that_is_shown_is_not_sent_again(
    app: RunningApp, model: ScriptedModel
) -> None:
    end = asyncio.Event()
    model.script(Reply(["One ", "two."], gates={1: end}))
    alice = await app.visitor()
    _, reply = await asked(alice)
    await until_shown(alice, "<p>One</p>")
    tasks = [asyncio.create_task(alice.follow(reply, shown)) for shown in (len("One "), 0)]
    while len(app.services.replies._live_replies[bytes.fromhex(reply)].changed._waiters) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    end.set()
    same, other = [events(await task) for task in tasks]
    assert "<p>One</p>" not in "".join(data for _, data in same)
    assert "<p>One</p>" in other[0][1]
    assert all("One two." in each[-1][1] for each in (same, other))


async def test_words_of_the_model_are_markdown_and_nothing_else(
    app: RunningApp, model: ScriptedModel
) -> None:
    model.script(
        Reply(
            [
                "<script>alert(`heron`)</script>",
                '<hx-partial hx-get="/sign-out">',
                "\n\ndata: x\n\nevent: done",
            ]
        )
    )
    alice = await app.visitor()
    _, reply = await asked(alice)
    for name, data in events(await alice.follow(reply)):
        assert name in ("reply", "done")
        assert "<script" not in data
        assert "<hx-partial hx-get" not in data
    page = await alice.get(DAY)
    assert "heron" in page.text
    assert "<script>alert" not in page.text


@pytest.mark.parametrize("fragment", [False, True])
async def test_stop_keeps_what_came(app: RunningApp, model: ScriptedModel, fragment: bool) -> None:
    model.script(Reply(["Half a sentence"], fault="hang"))
    alice = await app.visitor()
    _, reply = await asked(alice)
    await until_shown(alice, "Half a sentence")
    following = asyncio.create_task(alice.follow(reply))
    stopped = await alice.post(f"/r/{reply}/stop", fragment=fragment)
    if fragment:
        assert "Half a sentence" in stopped.text
        assert "data-stop" not in stopped.text
    else:
        assert stopped.location == f"{DAY}#e-{reply}"
    assert events(await following)[-1][0] == "done"
    page = await alice.get(DAY)
    assert "Half a sentence" in page.text
    assert "data-stop" not in page.text


async def test_an_entry_has_one_reply_at_a_time(app: RunningApp, model: ScriptedModel) -> None:
    end = asyncio.Event()
    model.script(Reply(["Once."], gates={1: end}))
    alice = await app.visitor()
    entry, reply = await asked(alice)
    answers = await asyncio.gather(
        *(alice.post(f"/e/{entry}/replies", fragment=True) for _ in range(3))
    )
    assert [answer.ids for answer in answers] == [[reply]] * 3
    end.set()
    await alice.follow(reply)
    assert (await alice.get(DAY)).ids == [entry, reply]


async def test_deleting_it_while_it_streams_stops_it(app: RunningApp, model: ScriptedModel) -> None:
    model.script(Reply(["Half a"], fault="hang"))
    alice = await app.visitor()
    entry, reply = await asked(alice)
    await until_shown(alice, "Half a")
    following = asyncio.create_task(alice.follow(reply))
    gone = await alice.post(f"/e/{reply}/delete", fragment=True)
    assert "Deleted. Undo" in gone.visible_text
    await following
    await asyncio.wait_for(model.chat_requests[0].ended.wait(), 60)
    assert (await alice.get(DAY)).ids == [entry]
    await alice.post(f"/e/{reply}/restore")
    page = await alice.get(DAY)
    assert page.ids == [entry, reply]
    assert "Half a" in page.text


async def test_signing_out_ends_what_other_tabs_are_told(
    app: RunningApp, model: ScriptedModel
) -> None:
    middle = asyncio.Event()
    model.script(Reply(["Before. ", "After."], gates={1: middle}))
    alice = await app.visitor()
    _, reply = await asked(alice)
    await until_shown(alice, "Before.")
    following = asyncio.create_task(alice.follow(reply))
    while len(app.services.replies._live_replies[bytes.fromhex(reply)].changed._waiters) == 0:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await alice.post("/sign-out")
    middle.set()
    assert "After." not in await following
    again = await app.visitor()
    await until_shown(again, "After.")  # it was written to its end all the same


@pytest.mark.parametrize("how", ["down", "refuses", "cut", "silent"])
async def test_a_model_that_fails_is_a_sentence_and_nothing_is_lost(
    app: RunningApp, model: ScriptedModel, how: str
) -> None:
    alice = await app.visitor()
    if how == "down":
        await model.stop()
    model.script(
        {
            "down": Reply(),
            "refuses": Reply(fault="status", status=500, body="your words were: What now?"),
            "cut": Reply(["Some words"], fault="cut"),
            "silent": Reply([]),
        }[how]
    )
    entry, reply = await asked(alice)
    final = events(await alice.follow(reply))[-1][1]
    page = await alice.get(DAY)
    assert page.ids == [entry, reply]
    for text in (final, page.text):
        found = re.search(r'<span class="problem">([^<]+)</span>', text)
        assert found is not None
        sentence = html.unescape(found[1])
        assert sentence.endswith(".")
        assert "What now?" not in sentence
    if how == "cut":
        assert "Some words" in page.text


@pytest.mark.parametrize("fragment", [True, False])
async def test_without_a_model_who_asks_is_shown_what_is_near_and_no_word_is_made(
    start: Start, *, fragment: bool
) -> None:
    app = await start(llm=LlmSettings())  # as it is installed, with the packaged model
    alice = await app.visitor()
    await alice.write("The gate by the river squeaks in the wind.", "2026-03-14")
    entry = await alice.write("What was it about the gate by the river?")
    assert (
        f'formaction="/e/{entry}/replies"' in (await alice.get(DAY)).text
    )  # the key r presses it, too
    await app.services.search.wait_until_idle(app.keys().user_id)
    answer = await alice.post(f"/e/{entry}/replies", fragment=fragment)
    assert answer.status == 200
    assert (
        fragment or "No model is connected" in answer.visible_text
    )  # the page that a fragment stands on says it already
    assert "The gate by the river squeaks" in answer.visible_text
    assert (await alice.get(DAY)).ids == [entry]


async def test_without_a_model_every_other_question_is_a_sentence(start: Start) -> None:
    app = await start(llm=LlmSettings())
    alice = await app.visitor()
    entry = await alice.write("What now, by the #river?")
    trace = (await app.services.journal.tags.find_by_name(app.keys(), "river")).id.hex()
    for path, form in (
        (f"{DAY}/replies", {"entry": entry}),
        (f"{DAY}/recap", {}),
        (f"/traces/{trace}/summary", {}),
    ):
        answer = await alice.post(path, form, fragment=True)
        assert answer.status == 503, path
        assert answer.error_sentence.startswith("No model is connected"), path
    await alice.post("/you/openings", {"openings": "on"})
    assert "/d/today/opening" not in (await alice.get("/d/today")).text
    suggested = await alice.post(f"/e/{entry}/traces/suggested", fragment=True)
    assert suggested.status == 200
    assert "model" not in suggested.visible_text


@pytest.mark.skipif(
    bool(EmbeddedServer.unavailable_reason()),
    reason=EmbeddedServer.unavailable_reason() or "available",
)
async def test_the_packaged_model_answers_who_chose_it(start: Start) -> None:
    app = await start(llm=LlmSettings(max_reply_tokens=16))
    alice = await app.visitor()
    page = await alice.get("/you")
    assert f'<option value="{BUILT_IN}">demonstration (tiny; it invents)</option>' in page.text
    assert (await alice.post("/you/model", {"endpoint": BUILT_IN})).status == 303
    assert "It is on this machine" in (await alice.get("/you")).visible_text
    entry = await alice.write("Walked along the river before work.")
    reply = await alice.ask_for_reply(entry)
    stored = await app.services.journal.get(app.keys(), bytes.fromhex(reply))
    assert stored.text
    assert stored.receipt is not None
    assert (stored.receipt.model, stored.receipt.endpoint) == (BUILT_IN_MODEL, "")
    assert "Keep and ask" in await alice.follow(reply)


async def test_a_reply_left_by_a_crash_is_shown_as_cut_short(
    app: RunningApp, model: ScriptedModel
) -> None:
    alice = await app.visitor()
    entry = await alice.write("What now?")
    root = await app.services.journal.get(app.keys(), bytes.fromhex(entry))
    left = Entry(
        b"r" * 16,
        root.day,
        "reply",
        "Half a sen",
        root.at,
        "UTC",
        parent_id=root.id,
        state="streaming",
        boot="gone",
    )
    await app.services.db.entries.add(app.keys(), left)
    page = await alice.get(DAY)
    assert "Half a sen" in page.text
    assert "Cut short when the server stopped." in page.visible_text
    assert "data-stop" not in page.text


async def test_a_restart_in_the_middle_keeps_what_came(start: Start, model: ScriptedModel) -> None:
    first = await start(llm=settings_for_model(model))
    model.script(Reply(["Half a sentence"], fault="hang"))
    alice = await first.visitor()
    _, reply = await asked(alice)
    await until_shown(alice, "Half a sentence")
    begun, follow = asyncio.Event(), first.services.replies.follow

    async def followed(
        keys: Keyring, reply_id: bytes
    ) -> AsyncGenerator[tuple[Entry, Notice | None]]:
        async for state in follow(keys, reply_id):
            yield state
            begun.set()

    first.services.replies.follow = followed  # type: ignore[method-assign]
    following = asyncio.create_task(alice.follow(reply))
    await begun.wait()
    await first.stop()
    assert "Half a sentence" in await following
    second = await start(llm=settings_for_model(model))
    page = await (await second.visitor()).get(DAY)
    assert "Half a sentence" in page.text
    assert "Cut short when the server stopped." in page.visible_text


async def test_a_reply_that_waited_its_turn_leaves_no_index_open(
    start: Start, model: ScriptedModel
) -> None:
    app = await start(llm=replace(settings_for_model(model), slots=1))
    held = asyncio.Event()
    model.script(Reply(["One ", "two."], gates={1: held}))
    alice = await app.visitor()
    await asked(alice, "First.")
    _, waiting = await asked(alice, "Second.")
    await until_shown(alice, "<p>One</p>")
    await alice.post("/sign-out")
    assert app.services.search.unlocked_user_ids() == []
    held.set()
    while bytes.fromhex(waiting) in app.services.replies._live_replies:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    app.app.extensions["llamora.lifecycle"].lock_signed_out()
    assert app.services.search.unlocked_user_ids() == []
    again = await app.visitor()
    page = await again.get(DAY)
    assert "One two." in page.visible_text
    assert "It was a quiet day." in page.visible_text
    app.app.extensions["llamora.lifecycle"].lock_signed_out()
    assert len(app.services.search.unlocked_user_ids()) == 1


async def test_replies_that_are_turned_off_are_nowhere(
    app: RunningApp, model: ScriptedModel
) -> None:
    model.default_reply = Reply(["The zebra was a quiet one."])
    alice = await app.visitor()
    entry, reply = await asked(alice)
    await until_shown(alice, "The zebra was a quiet one.")
    seen = await alice.get((await alice.post("/search", {"q": "zebra"})).location)
    assert "a reply" in seen.visible_text
    assert (await alice.post("/you/replies", {"replies": "off"})).status == 303
    for query in ("zebra", "by:reply zebra"):
        found = await alice.get((await alice.post("/search", {"q": query})).location)
        assert "a reply" not in found.visible_text
        assert "Nothing found" in found.visible_text
    for path in (f"/r/{reply}/prefer", f"/e/{entry}/withheld", f"/e/{entry}/replies"):
        assert (await alice.post(path, {})).status == 404
    assert events(await alice.follow(reply)) == [("done", "")]


async def test_a_reply_is_asked_for_to_ones_own_words_and_its_address_is_its_own(
    app: RunningApp,
) -> None:
    alice = await app.visitor()
    entry, reply = await asked(alice)
    await until_shown(alice, "quiet day")
    refused = await alice.post(f"/e/{reply}/replies", {})
    assert (refused.status, refused.error_sentence[:20]) == (422, "A reply is asked for")
    for path in (f"/r/{entry}/prefer", f"/r/{entry}/stop"):
        assert (await alice.post(path, {})).status == 404
    assert events(await alice.follow(entry)) == [("done", "")]


async def test_a_reply_that_was_stopped_says_so(app: RunningApp, model: ScriptedModel) -> None:
    model.default_reply = Reply(["One two three. ", "Four."], gates={1: asyncio.Event()})
    alice = await app.visitor()
    _, reply = await asked(alice)
    await until_shown(alice, "One two three.")
    await alice.post(f"/r/{reply}/stop", {})
    assert "Stopped by you." in (await alice.get(DAY)).visible_text


async def test_a_reply_that_a_filter_ended_says_so(app: RunningApp, model: ScriptedModel) -> None:
    model.script(Reply(["The first half of it and"], finish_reason="content_filter"))
    alice = await app.visitor()
    reply = await alice.ask_for_reply(await alice.write("What now?"))
    stored = await app.services.db.entries.get(app.keys(), bytes.fromhex(reply))
    assert (stored.text, stored.state, bool(stored.note)) == (
        "The first half of it and",
        "stopped",
        True,
    )


async def test_a_writer_without_replies_comes_upon_no_word_of_them(
    app: RunningApp, model: ScriptedModel
) -> None:
    """Every page that can be reached by its links and by searching; `/you` alone has the way back."""
    model.default_reply = Reply(["The zebra was a quiet one."])
    alice = await app.visitor()
    entry, reply = await asked(alice)
    await until_shown(alice, "The zebra was a quiet one.")
    answered = await alice.add_answer(reply, "It was.")
    gone = await alice.write("Gone.")
    await alice.post(f"/e/{gone}/delete")
    await alice.post("/you/replies", {"replies": "off"})
    mention = re.compile(r"\b(?:repl(?:y|ies)|models?|zebra|scripted)\b", re.IGNORECASE)
    seen, ahead = (
        set[str](),
        ["/d/today", DAY, f"/e/{answered}/edit", f"/e/{entry}/versions", f"/e/{gone}/erase"],
    )
    while ahead:
        path = ahead.pop().partition("#")[0]
        if path in seen:
            continue
        seen.add(path)
        shown = await alice.get(path)
        if not shown.headers["Content-Type"].startswith("text/html"):
            continue
        # On /you they can be turned on again: that one section says what they are.
        text = re.sub(
            r'<section aria-labelledby="h-model">.*?</section>', "", shown.text, flags=re.DOTALL
        )
        text = re.sub(r"<(?:script|link|meta)[^>]*>", "", text)
        words = html.unescape(
            re.sub(r"<[^>]+>", " ", text)
            + " ".join(re.findall(r'(?:aria-label|title|placeholder)="([^"]*)', text))
        )
        assert not mention.search(words), (path, mention.findall(words))
        links = [html.unescape(link) for link in re.findall(r'href="(/[^"]*)"', text)]
        # Of days and months that have nothing on them one is like the other.
        ahead += [link for link in links if not re.match(r"/static|/d/2|/calendar/", link)]
    assert {"/you", "/search", "/deleted", DAY} <= seen
    for query in ("was", "by:me was", "quiet", "by:reply", "by:reply quiet"):
        found = await alice.get((await alice.post("/search", {"q": query})).location)
        words = found.visible_text.replace(query, "").replace("by:reply", "")
        assert not mention.search(words), (query, mention.findall(words))
        typed = await alice.post("/search/typing", {"q": query}, fragment=True)
        assert not mention.search(typed.visible_text.replace("by:reply", "")), query
    assert (await alice.get(f"/e/{reply}/edit")).status == 404
    assert not mention.search((await alice.get(f"/e/{reply}/edit")).visible_text)


async def test_more_entries_than_one_reply_answers_are_not_cut_in_silence(
    app: RunningApp, model: ScriptedModel
) -> None:
    alice = await app.visitor()
    entry = await alice.write("What now?")
    for count, said in (
        (201, "at most 200 entries"),
        (400, "more fields than any page here sends"),
    ):
        body = "&".join([f"csrf={alice.cookie('llamora_csrf')}", *([f"entry={entry}"] * count)])
        headers = {"Content-Type": "application/x-www-form-urlencoded", "HX-Request": "true"}
        response = await alice.client.post(f"{DAY}/replies", data=body, headers=headers)
        assert response.status_code in (413, 422)
        assert said in await response.get_data(as_text=True)
    assert model.chat_requests == []


@pytest.mark.parametrize(
    ("path", "of_reply"),
    [
        ("/r/{}/stop", True),
        ("/e/{}/delete", True),
        ("/e/{}/delete", False),
        ("/e/{}/withheld", False),
        ("/e/{}/erase", False),
    ],
)
async def test_nobody_ends_what_another_user_is_told(
    app: RunningApp, model: ScriptedModel, path: str, of_reply: bool
) -> None:
    end = asyncio.Event()
    model.script(Reply(["It rained, ", "and on."], gates={1: end}))
    alice, bob = await app.visitor(), await app.visitor("Bob")
    entry, reply = await asked(alice)
    await until_shown(alice, "It rained,")
    refused = await bob.post(path.format(reply if of_reply else entry), {"withheld": "yes"})
    assert refused.status == 404
    end.set()
    async with asyncio.timeout(30):
        assert "It rained, and on." in (await until_shown(alice, "and on.")).visible_text
