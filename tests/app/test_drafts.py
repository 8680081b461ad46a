"""Drafts over HTTP: every form is filled with what was begun in it, and keeping it settles it."""

import re
import secrets

import pytest

from tests.app.conftest import PageResponse, RunningApp, Start, Visitor, settings_for_model
from tests.scripted_model import Reply, ScriptedModel

DAY = "/d/2026-11-20"
PLACE = "day:2026-11-20"


def form_token() -> str:
    return secrets.token_hex(16)


async def save(visitor: Visitor, text: str, place: str = PLACE, **more: str) -> PageResponse:
    form = {"draft_key": place, "text": text, "form_token": form_token(), "count": "1", **more}
    return await visitor.post("/drafts", form, fragment=True)


def form_token_in(answer: PageResponse, form_token_id: str = "form-token") -> str:
    found = re.search(rf'id="{form_token_id}" name="form_token" value="([0-9a-f.]+)"', answer.text)
    assert found is not None, answer.text
    return found[1]


async def test_the_composer_is_filled_with_what_was_begun_on_its_day(app: RunningApp) -> None:
    alice, bob = await app.visitor(), await app.visitor("Bob")
    answer = await save(alice, "Half a <b>thought</b>\r\n")
    assert (answer.status, answer.body) == (204, b"")
    day = await alice.get(DAY)
    assert day.field("write") == "Half a <b>thought</b>\n"
    assert "<b>thought" not in day.text
    assert (await alice.get("/d/2026-11-19")).field("write") == ""
    assert (await bob.get(DAY)).field("write") == ""
    assert (await save(alice, "")).status == 204
    assert (await alice.get(DAY)).field("write") == ""


@pytest.mark.parametrize("fragment", [False, True])
async def test_keeping_settles_the_draft_that_the_form_was_filled_with(
    app: RunningApp, fragment: bool
) -> None:
    alice = await app.visitor()
    await save(alice, "Half")
    form = await alice.get(DAY)
    held = form_token_in(form)
    assert re.fullmatch("[0-9a-f]{32}[.][0-9a-f]{32}", held)
    kept = {"text": "Half and half", "draft_key": PLACE, "form_token": held}
    answer = await alice.post(DAY + "/entries", kept, fragment=fragment)
    assert answer.status == (200 if fragment else 303)
    if fragment:
        assert form_token_in(answer) != held  # for what is written next
    assert (await alice.get(DAY)).field("write") == ""
    late = await save(alice, "Half and", form_token=held.partition(".")[0])
    assert late.status == 205
    # Without a length an empty chunk would be sent, and a browser takes it for the beginning of the next answer.
    assert late.headers["Content-Length"] == "0"
    assert (await alice.get(DAY)).field("write") == ""
    again = await alice.post(DAY + "/entries", kept, fragment=fragment)
    assert again.status == answer.status
    assert (await alice.get(DAY)).text.count("<article") == 1


async def test_an_edit_that_was_begun_stands_open_with_the_revision_it_was_begun_on(
    app: RunningApp,
) -> None:
    alice = await app.visitor()
    entry = await alice.write("One.")
    await save(alice, "One and a half.", f"entry:{entry}", revision="1")
    day = await alice.get(DAY)
    assert day.field(f"edit-{entry}") == "One and a half."
    assert "autofocus" not in day.text.partition("<main")[2].partition("</main>")[0]
    await alice.post(f"/e/{entry}", {"text": "Two.", "revision": "1"})  # on another device
    for answer in (await alice.get(DAY), await alice.get(f"/e/{entry}/edit")):
        assert answer.field(f"edit-{entry}") == "One and a half."
        assert 'name="revision" value="1"' in answer.text
    kept = {
        "text": "One and a half.",
        "revision": "1",
        "form_token": form_token_in(day, f"form-token-{entry}"),
    }
    conflict = await alice.post(f"/e/{entry}", kept, fragment=True)
    assert conflict.status == 409
    assert "Two." in conflict.visible_text
    assert 'name="revision" value="2"' in conflict.text
    resolved = {
        "text": "Three.",
        "revision": "2",
        "form_token": form_token_in(conflict, f"form-token-{entry}"),
    }
    assert (await alice.post(f"/e/{entry}", resolved)).status == 303
    assert '<textarea id="edit-' not in (await alice.get(DAY)).text


@pytest.mark.parametrize("fragment", [False, True])
async def test_letting_an_edit_go_leaves_the_entry_as_it_is(
    app: RunningApp, fragment: bool
) -> None:
    alice, bob = await app.visitor(), await app.visitor("Bob")
    entry = await alice.write("One.")
    await save(alice, "Another.", f"entry:{entry}", revision="1")
    assert (await bob.post(f"/e/{entry}/leave")).status == 404
    assert (await alice.get(DAY)).field(f"edit-{entry}") == "Another."
    answer = await alice.post(f"/e/{entry}/leave", fragment=fragment)
    assert answer.status == (200 if fragment else 303)
    assert "Another." not in (await alice.get(DAY)).text


async def test_an_answer_that_was_begun_stands_open(start: Start, model: ScriptedModel) -> None:
    app = await start(llm=settings_for_model(model))
    alice = await app.visitor()
    model.script(Reply(["A reply."]))
    entry = await alice.write("One.")
    reply = await alice.ask_for_reply(entry)
    await save(alice, "Well,", f"answer:{reply}")
    day = await alice.get(DAY)
    assert day.field(f"a-{reply}") == "Well,"
    assert '<details class="answer-disclosure" open>' in day.text
    form = {"text": "Well, yes.", "form_token": form_token_in(day, f"form-token-{reply}")}
    answer = await alice.post(f"/e/{reply}/answers", form, fragment=True)
    assert form_token_in(answer, f"form-token-{reply}") != form["form_token"]
    assert (await alice.get(DAY)).field(f"a-{reply}") == ""


async def test_what_is_no_place_no_pen_or_too_long_is_refused(app: RunningApp) -> None:
    alice, bob = await app.visitor(), await app.visitor("Bob")
    entry = await alice.write("Mine.")
    assert (await save(bob, "Mine?", f"entry:{entry}")).status == 404
    assert (await save(alice, "words", "day:yesterday")).status == 404
    for wrong in ("", "zz", "00", f"{form_token()}.{form_token()}.{form_token()}"):
        assert (await save(alice, "words", form_token=wrong)).status == 404
    answer = await save(alice, "a" * 5_000_000)
    assert answer.status in (413, 422)
    assert "longer than" in answer.error_sentence
    assert (
        await app.anonymous().post(
            "/drafts", {"draft_key": PLACE, "text": "x", "form_token": form_token()}
        )
    ).status == 401
    assert (await alice.get(DAY)).field("write") == ""


async def test_a_draft_outlives_the_server(start: Start) -> None:
    app = await start()
    await save(await app.visitor(), "Until tomorrow")
    await app.stop()
    app = await start()
    assert (await (await app.visitor()).get(DAY)).field("write") == "Until tomorrow"
