"""The search page: addresses of its own, as you type, chips, what is remembered, what was also written."""

import re

import pytest

from tests.app.conftest import RunningApp, Visitor


async def asked(visitor: Visitor, query: str) -> str:
    """Search, and return the address of the results."""
    answer = await visitor.post("/search", {"q": query})
    assert answer.status == 303
    assert re.fullmatch(r"/search/[0-9a-f]{32}", answer.location)
    return answer.location


async def test_results_have_an_address_that_says_nothing_and_can_be_come_back_to(
    app: RunningApp,
) -> None:
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


async def test_as_you_type_unfinished_words_are_found_and_nothing_is_remembered(
    app: RunningApp,
) -> None:
    alice = await app.visitor()
    entry = await alice.write("The lighthouse stood.")
    answer = await alice.post("/search/typing", {"q": "lightho"}, fragment=True)
    assert entry in answer.text
    place = answer.headers["HX-Replace-Url"]
    assert "light" not in place
    assert entry in (await alice.get(place)).text  # who comes back finds what was found
    assert await app.services.db.search_history.recent(app.keys()) == []
    submitted = await alice.post("/search", {"q": "lighthouse"}, fragment=True)
    assert entry in submitted.text
    assert entry in (await alice.get(submitted.headers["HX-Replace-Url"])).text
    assert await app.services.db.search_history.recent(app.keys()) == ["lighthouse"]


async def test_searches_are_shown_again_forgotten_and_not_remembered(app: RunningApp) -> None:
    alice = await app.visitor()
    await alice.write("The heron stood.")
    await asked(alice, "heron")
    assert "You searched for heron" in (await alice.get("/search")).visible_text
    await alice.post("/search/forget")
    assert "You searched for" not in (await alice.get("/search")).visible_text
    await asked(alice, "heron")
    await alice.post("/search/remember", {"remember": "no"})
    page = await alice.get("/search")
    assert "You searched for" not in page.visible_text
    assert "Remember searches" in page.visible_text
    place = await asked(alice, "heron")
    assert "The heron stood." in (await alice.get(place)).visible_text
    assert await app.services.db.search_history.recent(app.keys()) == []
    await alice.post("/search/remember", {"remember": "yes"})
    await asked(alice, "heron")
    assert await app.services.db.search_history.recent(app.keys()) == ["heron"]
    await alice.post("/you/settings", {"section": "writing", "letters": "off"})
    assert await app.services.db.search_history.recent(app.keys()) == ["heron"]


async def test_what_narrows_a_search_stands_as_chips_that_can_be_taken_off(app: RunningApp) -> None:
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
    assert "Searched for: heron, grey; in replies; in 2024; without otter." in page.visible_text
    assert entry in (await alice.get(await asked(alice, 'heron in:2024 "grey heron" -otter'))).text


async def test_you_also_wrote(app: RunningApp) -> None:
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


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("heron in:2024", "One place. Only in 2024."),
        ("heron in:May-2024", "One place. Only in May 2024."),
        ("heron on:3 May 2024", "One place. Only on 3 May 2024."),
        ("heron before:2025", "One place. Only until 31 December 2024."),
        ("heron after:2023", "One place. Only from 1 January 2024 on."),
        ("heron in:3-5 May 2024", "One place. Only from 3 May 2024 to 5 May 2024."),
        ("May 2024", "One place. Only in May 2024."),
        (
            "heron tag:weir by:me",
            "Nothing found. Fewer words, or other ones, may help. Searched for: heron; the trace weir; by you.",
        ),
        ("heron in:2024-13", "2024-13” names no day, month or year, so it was searched as words."),
        ("heron in:march in:april", "No day is in all of “in:march”, “in:april”."),
        ("by:me by:reply", "Nothing found. Nothing is by you and a reply at once."),
        ('"heron" -heron', "“heron” is asked for and left out at once."),
        (
            '"stood heron" in:2024',
            "No entry that fits the rest holds the quoted words in that order",
        ),
        ('"stood heron"', "No entry holds the quoted words in that order"),
        ("heron " * 500, "Only the first 2000 letters were searched."),
    ],
)
async def test_what_was_made_of_a_query_is_said(app: RunningApp, query: str, sentence: str) -> None:
    alice = await app.visitor()
    await alice.write("The grey heron stood.", day="2024-05-03")
    page = await alice.get(await asked(alice, query))
    assert sentence in page.visible_text
    impossible = "at once" in sentence or "No day" in sentence
    assert ('class="hit"' in page.text) == (not impossible and "Nothing found" not in sentence)
    typed = await alice.post("/search/typing", {"q": query}, fragment=True)
    assert typed.status == 200


async def test_what_narrows_twice_is_one_chip_and_comes_off_at_once(app: RunningApp) -> None:
    alice = await app.visitor()
    await alice.write("The grey heron stood.", day="2024-05-03")
    page = await alice.get(await asked(alice, "on:3 May 2024 heron on:3 May 2024"))
    assert re.findall(
        r'name="q" value="([^"]*)"', page.text.partition('class="chips"')[2].partition("</ul>")[0]
    ) == ["heron"]


@pytest.mark.parametrize("blank", ["", "   ", "\n"])
async def test_an_emptied_field_leaves_the_address_of_the_form(app: RunningApp, blank: str) -> None:
    alice = await app.visitor()
    for path in ("/search", "/search/typing"):
        answer = await alice.post(path, {"q": blank}, fragment=True)
        assert answer.status == 200
        assert answer.headers["HX-Replace-Url"] == "/search"
        assert "<html" not in answer.text
        assert 'id="results"' in answer.text


async def test_who_turned_replies_off_is_told_of_none(app: RunningApp) -> None:
    alice = await app.visitor()
    await alice.write("The heron stood.")
    assert "by:reply" in (await alice.get("/search")).visible_text
    await alice.post("/you/replies", {})
    page = await alice.get("/search")
    assert "by:reply" not in page.visible_text
    page = await alice.get(await asked(alice, "heron by:reply"))
    assert "Nothing found." in page.visible_text
    assert 'class="hit"' not in page.text


async def test_times_in_german_where_the_page_is_german(app: RunningApp) -> None:
    alice = await app.visitor()
    old = await alice.write("The heron stood.", day="2024-03-12")
    new = await alice.write("The heron flew.", day="2024-08-12")
    queries = (
        "heron on:12. März 2024",
        "heron before:Mai-2024",
        "in:März-2024 heron",
        "am 12. März 2024",
    )
    for query in queries:
        assert new in (await alice.get(await asked(alice, query))).text or query == queries[-1]
    await alice.post("/you/settings", {"language": "de"})
    for query in (*queries, "heron before:May-2024"):
        page = (await alice.get(await asked(alice, query))).text
        assert old in page, query
        assert new not in page, query
