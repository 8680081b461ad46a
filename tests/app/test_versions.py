"""Earlier versions over HTTP."""

import re

from tests.app.conftest import RunningApp

DAY = "/d/2026-11-20"


async def test_the_time_of_an_edited_entry_leads_to_what_it_said_before(app: RunningApp) -> None:
    alice, bob = await app.visitor(), await app.visitor("Bob")
    entry = await alice.write("A <i>heron</i>.")
    path = f"/e/{entry}/versions"
    assert path not in (await alice.get(DAY)).text
    await alice.post(f"/e/{entry}", {"text": "A *gull*.", "revision": "1"})
    await alice.post(f"/e/{entry}", {"text": "A tern.", "revision": "2"})
    assert f'href="{path}"' in (await alice.get(DAY)).text
    page = await alice.get(path)
    assert page.status == 200
    assert "A <em>gull</em>." in page.text
    assert "<i>" not in page.text
    assert page.visible_text.index("gull") < page.visible_text.index("heron")
    assert (await bob.get(path)).status == 404
    assert (await app.anonymous().get(path)).status == 303

    oldest = re.findall(rf'action="{path}/([0-9a-f]{{32}})"', page.text)[-1]
    stale = await alice.post(f"{path}/{oldest}", {"revision": "1"})
    assert stale.status == 409
    assert "changed elsewhere" in stale.error_sentence
    assert 'name="revision" value="3"' in stale.text
    assert (await bob.post(f"{path}/{oldest}", {"revision": "3"})).status == 404
    back = await alice.post(f"{path}/{oldest}", {"revision": "3"})
    assert (back.status, back.location) == (303, f"{DAY}#e-{entry}")
    assert "heron" in (await alice.get(DAY)).visible_text
    assert "A tern." in (await alice.get(path)).visible_text


async def test_what_was_never_edited_has_none_and_says_so(app: RunningApp) -> None:
    alice = await app.visitor()
    entry = await alice.write("As it is.")
    page = await alice.get(f"/e/{entry}/versions")
    assert "Nothing of what this entry said before was kept." in page.visible_text
    assert (await alice.post(f"/e/{entry}/versions/{'0' * 32}", {"revision": "1"})).status == 404
