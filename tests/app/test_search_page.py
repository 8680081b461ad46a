"""The search page: addresses of its own, as you type, chips, what is remembered, what was also written."""

import re

from tests.app.conftest import Running, Visitor


async def asked(visitor: Visitor, query: str) -> str:
    """Search, and return the address of the results."""
    answer = await visitor.post("/search", {"q": query})
    assert answer.status == 303
    assert re.fullmatch(r"/search/[0-9a-f]{32}", answer.location)
    return answer.location


async def test_results_have_an_address_that_says_nothing_and_can_be_come_back_to(app: Running) -> None:
    alice, bob = await app.visitor(), await app.visitor("Bob")
    entry = await alice.write("The heron stood.")
    place = await asked(alice, "heron")
    for _ in range(2):
        assert entry in (await alice.get(place)).text
    stranger = await bob.get(place)
    assert stranger.status == 303
    assert stranger.location == "/search"
    assert (await alice.get("/search/" + "0" * 32)).location == "/search"
    assert (await alice.get("/search/nonsense")).location == "/search"


async def test_as_you_type_unfinished_words_are_found_and_nothing_is_remembered(app: Running) -> None:
    alice = await app.visitor()
    entry = await alice.write("The lighthouse stood.")
    answer = await alice.post("/search/typing", {"q": "lightho"}, fragment=True)
    assert entry in answer.text
    place = answer.headers["HX-Replace-Url"]
    assert "light" not in place
    assert entry in (await alice.get(place)).text or "lightho" in (await alice.get(place)).text
    assert await app.services.db.search_history.recent(app.keys()) == []
    submitted = await alice.post("/search", {"q": "lighthouse"}, fragment=True)
    assert entry in submitted.text
    assert entry in (await alice.get(submitted.headers["HX-Replace-Url"])).text
    assert await app.services.db.search_history.recent(app.keys()) == ["lighthouse"]


async def test_searches_are_shown_again_forgotten_and_not_remembered(app: Running) -> None:
    alice = await app.visitor()
    await alice.write("The heron stood.")
    await asked(alice, "heron")
    assert "You searched for heron" in (await alice.get("/search")).words
    await alice.post("/search/forget")
    assert "You searched for" not in (await alice.get("/search")).words
    await asked(alice, "heron")
    await alice.post("/search/remember", {"remember": "no"})
    page = await alice.get("/search")
    assert "You searched for" not in page.words
    assert "Remember searches" in page.words
    place = await asked(alice, "heron")
    assert "The heron stood." in (await alice.get(place)).words
    assert await app.services.db.search_history.recent(app.keys()) == []
    await alice.post("/search/remember", {"remember": "yes"})
    await asked(alice, "heron")
    assert await app.services.db.search_history.recent(app.keys()) == ["heron"]


async def test_what_narrows_a_search_stands_as_chips_that_can_be_taken_off(app: Running) -> None:
    alice = await app.visitor()
    entry = await alice.write("The grey heron stood.", day="2024-05-03")
    place = await asked(alice, 'heron by:reply in:2024 "grey heron" -otter')
    page = await alice.get(place)
    chips = re.search(r'<ul class="chips".*?</ul>', page.text, re.DOTALL)
    assert chips is not None
    rests = re.findall(r'name="q" value="([^"]*)"', chips[0])
    assert [re.sub("&#34;|&quot;", '"', rest) for rest in rests] == [
        'heron in:2024 "grey heron" -otter',
        'heron by:reply "grey heron" -otter',
        "heron by:reply in:2024 -otter",
        'heron by:reply in:2024 "grey heron"',
    ]
    assert "Searched for: heron, grey; by the model; from 1 January 2024; until 31 December 2024" in page.words
    assert entry in (await alice.get(await asked(alice, 'heron in:2024 "grey heron" -otter'))).text


async def test_you_also_wrote(app: Running) -> None:
    alice, bob = await app.visitor(), await app.visitor("Bob")
    entry = await alice.write("The doctor says my knee has to be operated on.")
    beside = await alice.write("My knee, again, on the same page.")
    near = await alice.write("My knee hurts on the stairs.", day="2024-05-03")
    await bob.write("Bob's knee.", day="2024-05-03")
    for fragment in (True, False):
        answer = await alice.post(f"/e/{entry}/related", fragment=fragment)
        assert answer.status == 200
        assert f"/d/2024-05-03#e-{near}" in answer.text
        assert f"#e-{beside}" not in answer.text
        assert "Bob" not in answer.text
    assert (await bob.post(f"/e/{entry}/related", fragment=True)).status == 404
