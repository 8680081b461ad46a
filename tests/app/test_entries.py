"""One entry: edited, deleted, brought back, answered, and never lost on the way."""

import re

import pytest

from llamora.persistence.connection import DiskFull
from llamora.persistence.entries import Entries
from llamora.settings import EntrySettings
from tests.app.conftest import RunningApp, Start, Visitor, settings_for_model
from tests.scripted_model import Reply, ScriptedModel

FULL = "The disk is full. Nothing was lost: make some room and try again."
DAY = "/d/2026-11-20"


async def revision(app: RunningApp, entry: str) -> str:
    return str((await app.services.db.entries.get(app.keys(), bytes.fromhex(entry))).revision)


async def text_of(app: RunningApp, entry: str) -> str:
    return (await app.services.db.entries.get(app.keys(), bytes.fromhex(entry))).text


async def count_found(visitor: Visitor, query: str) -> int:
    """How often something is found, once the index has taken in what was written."""
    found = await visitor.post("/search", {"q": query}, fragment=True)
    assert found.status == 200
    return found.text.count('class="hit"')


async def thread(app: RunningApp, alice: Visitor, model: ScriptedModel) -> tuple[str, str, str]:
    """An entry about herons, a reply about kingfishers, an answer about otters."""
    model.script(Reply(["A word about the kingfisher."]))
    entry = await alice.write("The heron stood there.")
    reply = await alice.ask_for_reply(entry)
    return entry, reply, await alice.add_answer(reply, "No, an otter.")


@pytest.mark.parametrize("fragment", [False, True])
async def test_an_edit_is_kept_and_said_to_be_one(app: RunningApp, fragment: bool) -> None:
    alice = await app.visitor()
    entry = await alice.write("First thought.")
    form = await alice.get(f"/e/{entry}/edit", fragment=fragment)
    assert form.field("text") == "First thought."
    assert ("<!doctype" in form.text.lower()) != fragment
    answer = await alice.post(
        f"/e/{entry}", {"text": "Second\r\nthought.", "revision": "1"}, fragment=fragment
    )
    if fragment:
        assert answer.ids == [entry]
    else:
        assert (answer.status, answer.location) == (303, f"{DAY}#e-{entry}")
    assert await text_of(app, entry) == "Second\nthought."
    assert "edited" in (await alice.get(DAY)).visible_text
    assert await count_found(alice, "second") == 1
    assert await count_found(alice, "first") == 0


async def test_an_address_of_an_entry_leads_to_its_place(app: RunningApp) -> None:
    alice = await app.visitor()
    entry = await alice.write("Here.")
    assert (await alice.get(f"/e/{entry}")).location == f"{DAY}#e-{entry}"
    assert (await alice.get(f"/e/{entry}", fragment=True)).ids == [entry]


@pytest.mark.parametrize("fragment", [False, True])
async def test_a_stale_edit_shows_both_texts_and_can_then_be_kept(
    app: RunningApp, fragment: bool
) -> None:
    alice = await app.visitor()
    entry = await alice.write("As it was.")
    await alice.post(f"/e/{entry}", {"text": "From <the> phone.", "revision": "1"})
    answer = await alice.post(
        f"/e/{entry}", {"text": "From the & laptop.", "revision": "1"}, fragment=fragment
    )
    assert answer.status == 409
    assert (
        answer.error_sentence
        == "This entry was changed elsewhere in the meantime. Both are here; nothing is lost."
    )
    assert "From <the> phone." in answer.visible_text
    assert "From &lt;the&gt; phone." in answer.text
    assert answer.field("text") == "From the & laptop."
    assert ("<!doctype" in answer.text.lower()) != fragment
    assert await text_of(app, entry) == "From <the> phone."
    assert 'name="revision" value="2"' in answer.text
    again = await alice.post(
        f"/e/{entry}", {"text": "From the & laptop.", "revision": "2"}, fragment=fragment
    )
    assert again.status in (200, 303)
    assert await text_of(app, entry) == "From the & laptop."


async def test_the_same_text_from_two_places_is_no_conflict(app: RunningApp) -> None:
    alice = await app.visitor()
    entry = await alice.write("As it was.")
    for _ in range(2):
        answer = await alice.post(f"/e/{entry}", {"text": "As it is.", "revision": "1"})
        assert answer.status == 303
    assert await revision(app, entry) == "2"


async def test_a_refused_edit_is_still_compared_with_what_its_writer_saw(app: RunningApp) -> None:
    alice = await app.visitor()
    entry = await alice.write("As it was.")
    await alice.post(f"/e/{entry}", {"text": "From the phone.", "revision": "1"})
    refused = await alice.post(f"/e/{entry}", {"text": "  ", "revision": "1"})
    assert refused.status == 422
    assert refused.error_sentence == "There is nothing to keep yet. Write a line first."
    assert 'name="revision" value="1"' in refused.text
    assert (
        await alice.post(f"/e/{entry}", {"text": "From the laptop.", "revision": "1"})
    ).status == 409


@pytest.mark.parametrize("given", ["", "x", "-1", "1.0", "²", "9" * 30])
async def test_a_revision_that_is_none_overwrites_nothing(app: RunningApp, given: str) -> None:
    alice = await app.visitor()
    entry = await alice.write("As it was.")
    assert (await alice.post(f"/e/{entry}", {"text": "Other.", "revision": given})).status == 409
    assert await text_of(app, entry) == "As it was."


@pytest.mark.parametrize("fragment", [False, True])
async def test_an_edit_that_is_too_long_stays_on_screen(start: Start, fragment: bool) -> None:
    app = await start(entries=EntrySettings(max_bytes=1000))
    alice = await app.visitor()
    entry = await alice.write("Short.")
    answer = await alice.post(
        f"/e/{entry}", {"text": "x" * 1001, "revision": "1"}, fragment=fragment
    )
    assert answer.status == 422
    assert answer.field("text") == "x" * 1001
    assert "longer than the 0.001 MB" in answer.error_sentence


@pytest.mark.parametrize("fragment", [False, True])
async def test_a_full_disk_keeps_edits_and_answers_on_screen(
    app: RunningApp, monkeypatch: pytest.MonkeyPatch, fragment: bool
) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise DiskFull("disk_full")

    alice = await app.visitor()
    entry = await alice.write("As it was.")
    with monkeypatch.context() as full:
        full.setattr(Entries, "add", no_room)
        full.setattr(Entries, "update", no_room)
        full.setattr(Entries, "update_all", no_room)
        edit = await alice.post(
            f"/e/{entry}", {"text": "Longer.", "revision": "1"}, fragment=fragment
        )
        answer = await alice.post(f"/e/{entry}/answers", {"text": "And so?"}, fragment=fragment)
        deleted = await alice.post(f"/e/{entry}/delete", fragment=fragment)
    assert [edit.status, answer.status, deleted.status] == [507, 507, 507]
    assert edit.error_sentence == answer.error_sentence == deleted.error_sentence == FULL
    assert edit.field("text") == "Longer."
    if not fragment:  # with scripts it stays in its form
        assert answer.field("words") == "And so?"
    assert (await alice.get(DAY)).ids == [entry]
    assert await text_of(app, entry) == "As it was."


@pytest.mark.parametrize("fragment", [False, True])
async def test_what_was_deleted_comes_back(app: RunningApp, fragment: bool) -> None:
    alice = await app.visitor()
    entry, other = await alice.write("The heron."), await alice.write("Its shadow.")
    gone = await alice.post(f"/e/{entry}/delete", fragment=fragment)
    assert gone.status == 200
    assert "Deleted. Undo" in gone.visible_text
    assert f'action="/e/{entry}/restore"' in gone.text
    assert (await alice.get(DAY)).ids == [other]
    assert await count_found(alice, "heron") == 0
    for path in (f"/e/{entry}", f"/e/{entry}/edit"):
        answer = await alice.get(path)
        assert (answer.status, answer.error_sentence) == (404, "This entry was deleted.")
    late = await alice.post(f"/e/{entry}", {"text": "An edit from another tab", "revision": "1"})
    assert late.status == 404
    assert late.field("words") == "An edit from another tab"
    for _ in range(2):  # twice, as by an impatient finger
        back = await alice.post(f"/e/{entry}/restore", fragment=fragment)
        assert back.status == (200 if fragment else 303)
    assert (await alice.get(DAY)).ids == [entry, other]
    assert await count_found(alice, "heron") == 1


async def test_a_thread_goes_and_comes_back_with_its_entry(
    start: Start, model: ScriptedModel
) -> None:
    app = await start(llm=settings_for_model(model))
    alice = await app.visitor()
    entry, reply, answer = await thread(app, alice, model)
    assert (await alice.get(DAY)).ids == [entry, reply, answer]
    await alice.post(f"/e/{entry}/delete")
    await alice.write("Something else.")  # the index looks at the store again
    assert [await count_found(alice, word) for word in ("heron", "kingfisher", "otter")] == [
        0,
        0,
        0,
    ]
    again = await app.visitor()
    app.services.search.lock(app.keys().user_id)  # as signing out and in does
    assert [await count_found(again, word) for word in ("heron", "kingfisher", "otter")] == [
        0,
        0,
        0,
    ]
    await alice.post(f"/e/{entry}/restore")
    assert (await alice.get(DAY)).ids[:3] == [entry, reply, answer]
    assert [await count_found(alice, word) for word in ("heron", "kingfisher", "otter")] == [
        1,
        1,
        1,
    ]


async def test_what_was_deleted_before_stays_so_when_the_thread_comes_back(
    start: Start, model: ScriptedModel
) -> None:
    app = await start(llm=settings_for_model(model))
    alice = await app.visitor()
    entry, reply, answer = await thread(app, alice, model)
    await alice.post(f"/e/{reply}/delete")
    assert (await alice.get(DAY)).ids == [entry, answer]
    await alice.post(f"/e/{entry}/delete")
    await alice.post(f"/e/{entry}/restore")
    assert (await alice.get(DAY)).ids == [entry, answer]
    await alice.post(f"/e/{reply}/restore")
    assert (await alice.get(DAY)).ids == [entry, reply, answer]


async def test_what_the_model_wrote_is_not_edited(start: Start, model: ScriptedModel) -> None:
    app = await start(llm=settings_for_model(model))
    alice = await app.visitor()
    _, reply, _ = await thread(app, alice, model)
    form = await alice.get(f"/e/{reply}/edit")
    assert (form.status, form.error_sentence) == (
        404,
        "What the model wrote stays as it wrote it; delete it instead.",
    )
    refused = await alice.post(
        f"/e/{reply}", {"text": "Put into its mouth", "revision": await revision(app, reply)}
    )
    assert refused.status == 422
    assert await text_of(app, reply) == "A word about the kingfisher."


@pytest.mark.parametrize("fragment", [False, True])
async def test_an_answer_stands_under_what_it_answers(
    start: Start, model: ScriptedModel, fragment: bool
) -> None:
    app = await start(llm=settings_for_model(model))
    alice = await app.visitor()
    entry, reply, first = await thread(app, alice, model)
    answer = await alice.post(f"/e/{reply}/answers", {"text": "**Or** a mink."}, fragment=fragment)
    if fragment:
        assert answer.status == 200
        assert 'class="answer"' in answer.text
        second = answer.ids[0]
    else:
        assert answer.status == 303
        second = answer.location.rpartition("#e-")[2]
    assert (await alice.get(DAY)).ids == [entry, reply, first, second]
    kept = await app.services.journal.get(app.keys(), bytes.fromhex(second))
    assert kept.parent_id == bytes.fromhex(reply)
    assert len(model.chat_requests) == 1


@pytest.mark.parametrize("fragment", [False, True])
async def test_an_empty_answer_is_refused_with_a_sentence(
    start: Start, model: ScriptedModel, fragment: bool
) -> None:
    app = await start(llm=settings_for_model(model))
    alice = await app.visitor()
    entry, reply, answer = await thread(app, alice, model)
    refused = await alice.post(
        f"/e/{reply}/answers", {"text": "\r\n", "ask": "1"}, fragment=fragment
    )
    assert refused.status == 422
    assert refused.error_sentence == "There is nothing to keep yet. Write a line first."
    assert (await alice.get(DAY)).ids == [entry, reply, answer]


async def test_keep_and_ask_brings_answer_and_reply(start: Start, model: ScriptedModel) -> None:
    app = await start(llm=settings_for_model(model))
    alice = await app.visitor()
    entry, reply, answer = await thread(app, alice, model)
    both = await alice.post(
        f"/e/{reply}/answers", {"text": "A mink, then?", "ask": "1"}, fragment=True
    )
    assert len(both.ids) == 2
    await alice.follow(both.ids[1])
    assert (await alice.get(DAY)).ids == [entry, reply, answer, *both.ids]
    roles = [message["role"] for message in model.chat_requests[-1].body["messages"]]
    assert roles[-3:] == ["user", "assistant", "user"]
    assert "A mink, then?" in model.chat_requests[-1].body["messages"][-1]["content"]


async def test_an_answer_is_kept_although_there_is_no_model(app: RunningApp) -> None:
    alice = await app.visitor()
    entry = await alice.write("To myself.")
    both = await alice.post(f"/e/{entry}/answers", {"text": "And back.", "ask": "1"}, fragment=True)
    assert both.status == 200
    assert "The model is switched off in the settings." in both.visible_text
    assert len((await alice.get(DAY)).ids) == 2


async def test_a_very_long_entry_comes_in_parts(app: RunningApp) -> None:
    alice, bob = await app.visitor(), await app.visitor("Bob")
    words = [f"word{number}" for number in range(40_000)]
    text = "- [ ] a box\n\n" + "".join(
        f"{word}{chr(10) * 2 if n % 50 == 49 else ' '}" for n, word in enumerate(words)
    )
    kept = await alice.write(text + " #heron", day="2024-03-12")
    day = await alice.get("/d/2024-03-12")
    path = f"/e/{kept}/parts/2"
    assert len(day.body) < 200_000
    assert "Read on: part 2 of 4" in day.visible_text
    assert f'href="{path}"' in day.text
    assert 'name="box"' not in day.text  # a form with some of the boxes would clear the others
    answer, found = day, re.findall(r"word\d+", day.text)
    for part in range(2, 5):
        answer = await alice.get(f"/e/{kept}/parts/{part}", fragment=True)
        found += re.findall(r"word\d+", answer.text)
        assert ("Read on" in answer.visible_text) == (part < 4)
        assert "<html" not in answer.text
        assert (
            re.findall(r"word\d+", (await alice.get(f"/e/{kept}/parts/{part}")).text)[0]
            in answer.text
        )
    assert found == words
    assert 'class="tag"' in answer.text
    for wrong in ("0", "1", "5", "x", "-2", "99999999"):
        assert (await alice.get(f"/e/{kept}/parts/{wrong}")).status == 404
    assert (await bob.get(path)).status == 404
    assert (await app.anonymous().get(path)).status in (303, 401)
    # What is printed, edited and read for a month is all there, or says that more follows.
    printed = await alice.get("/print?from=2024-03-12&to=2024-03-12")
    assert re.findall(r"word\d+", printed.text) == words
    assert "Read on" not in printed.visible_text
    assert "Read on: part 2 of 4" in (await alice.get("/m/2024-03")).visible_text
    assert re.findall(r"word\d+", (await alice.get(f"/e/{kept}/edit")).field("text")) == words
