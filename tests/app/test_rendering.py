"""Rendering: off the event loop, once for each text, and forgotten at a lock."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from llamora.app.rendering import EXTENSION, SLICE_SECONDS, Renderer
from llamora.app.views import entries as entry_views
from tests.app.conftest import RunningApp, Start, worker_states

DAY = "/d/2026-11-20"


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the texts that are rendered; none may be on the thread of the event loop."""
    texts: list[str] = []
    real = entry_views.render_with_tags

    def render(text: str, *args: object, **kwargs: object) -> object:
        assert threading.current_thread() is not threading.main_thread()
        texts.append(text)
        return real(text, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(entry_views, "render_with_tags", render)
    return texts


async def test_a_text_is_rendered_once_until_it_changes(
    app: RunningApp, rendered: list[str]
) -> None:
    alice = await app.visitor()
    entry = await alice.write("*First* words.", "2026-11-20")
    await alice.write("Others.", "2026-11-20")
    rendered.clear()
    for _ in range(2):
        assert "<em>First</em> words." in (await alice.get(DAY)).text
    assert rendered == []  # both were rendered when they were saved
    await alice.post(f"/e/{entry}", {"text": "*Second* words.", "revision": "1"})
    assert "<em>Second</em> words." in (await alice.get(DAY)).text
    assert rendered == ["*Second* words."]


async def test_nothing_rendered_outlives_its_text(start: Start) -> None:
    """Not even in another worker: HTML of erased words must be nowhere."""
    first, other = worker_states(2)
    here, there = [await start(shared=shared) for shared in (first, other)]
    alice = await here.visitor()
    entry = await alice.write("Secret *words*.", "2026-11-20")
    cookies = {name: alice.cookie(name) for name in ("llamora", "llamora_csrf")}
    elsewhere = there.anonymous()
    for name, text in cookies.items():
        elsewhere.set_cookie(name, text)
    assert "Secret <em>words</em>." in (await elsewhere.get(DAY)).text

    def is_cached(text: str) -> list[bool]:
        renderers = [app.app.extensions[EXTENSION] for app in (here, there)]
        return [
            text in repr([cache._entries for cache in renderer._caches.values()])
            for renderer in renderers
        ]

    async def forgotten(text: str) -> None:
        async with asyncio.timeout(30):
            while any(is_cached(text)):  # noqa: ASYNC110 -- another process does it
                await asyncio.sleep(0.01)

    assert is_cached("Secret") == [True, True]
    await alice.post(f"/e/{entry}", {"text": "Other *words*.", "revision": "1"})
    await forgotten("Secret")
    assert "Other <em>words</em>." in (await elsewhere.get(DAY)).text
    assert is_cached("Other")[1]
    await here.services.trash.delete(here.keys(), bytes.fromhex(entry))
    await here.services.trash.erase(here.keys(), bytes.fromhex(entry))
    await forgotten("Other")


async def test_nothing_rendered_outlives_a_lock(app: RunningApp, rendered: list[str]) -> None:
    alice = await app.visitor()
    await alice.write("Words.", "2026-11-20")
    await alice.post("/sign-out", {})
    assert app.app.extensions[EXTENSION]._caches == {}
    rendered.clear()
    await alice.sign_in()
    assert "Words." in (await alice.get(DAY)).visible_text
    assert rendered == ["Words."]


async def test_one_user_never_gets_what_was_rendered_for_another(
    app: RunningApp, rendered: list[str]
) -> None:
    alice, bob = await app.visitor(), await app.visitor("Bob")
    for visitor in (alice, bob):
        await visitor.write("The same #words.", "2026-11-20")
    paths = [
        {part for part in (await v.get(DAY)).text.split('"') if part.startswith("/traces/")}
        for v in (alice, bob)
    ]
    assert not (paths[0] - {"/traces"}) & (paths[1] - {"/traces"})


async def test_the_excerpt_of_a_deleted_entry_is_not_taken_for_the_entry(
    app: RunningApp, rendered: list[str]
) -> None:
    alice = await app.visitor()
    entry = await alice.write("word " * 500 + "end", "2026-11-20")
    await alice.post(f"/e/{entry}/delete", {"revision": "1"})
    assert "…" in (await alice.get("/deleted")).visible_text
    await alice.post(f"/e/{entry}/restore", {})
    assert "word end" in (await alice.get(DAY)).visible_text


async def test_what_is_remembered_of_a_message_holds_no_form_and_no_token(app: RunningApp) -> None:
    alice = await app.visitor()
    await alice.write("- [ ] a box", "2026-11-20")
    await alice.write("A #tag.", "2026-11-20")
    page = (await alice.get(DAY)).text
    assert 'class="tasks"' in page
    remembered = repr([c._entries for c in app.app.extensions[EXTENSION]._caches.values()])
    assert "Trace" in remembered
    assert "<form" not in remembered
    assert alice.cookie("llamora_csrf") not in remembered


async def test_a_message_is_shown_anew_when_its_tags_or_the_settings_change(
    app: RunningApp,
) -> None:
    alice = await app.visitor()
    entry = await alice.write("Words.", "2026-11-20")
    await alice.get(DAY)
    await alice.post(f"/e/{entry}/traces", {"name": "late"})
    assert "#late" in (await alice.get(DAY)).visible_text
    await alice.post(f"/e/{entry}/withheld", {"withheld": "yes"})
    assert "kept from the model" in (await alice.get(DAY)).visible_text
    await alice.post("/you/settings", {"language": "de"})
    assert "Ändern" in (await alice.get(DAY)).visible_text


async def test_a_short_job_comes_before_the_rest_of_a_long_one() -> None:
    renderer = Renderer()

    def long_job() -> Iterator[int]:
        for number in range(20):
            time.sleep(SLICE_SECONDS)
            yield number

    try:
        jobs = [asyncio.create_task(renderer.run_in_slices(long_job())) for _ in range(4)]
        await asyncio.sleep(SLICE_SECONDS)
        await renderer.run(int)
        assert not any(job.done() for job in jobs)
        assert await asyncio.gather(*jobs) == [list(range(20))] * 4
    finally:
        renderer.close()
