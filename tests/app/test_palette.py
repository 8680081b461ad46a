"""The palette: what its words may mean."""

import re
from datetime import UTC, datetime

import pytest

from llamora.app.routes.palette import match_score
from llamora.journal import context
from tests.app.conftest import RunningApp, Visitor

WAY = re.compile(
    r'<a role="option" id="palette-item-\d+"[^>]*?(?: href="([^"]*)")?(?: data-press="([^"]*)")?>([^<]*)'
)


@pytest.fixture(autouse=True)
def _noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is Friday 20 November 2026."""
    monkeypatch.setattr(context, "utc_now", lambda: datetime(2026, 11, 20, 12, tzinfo=UTC))


async def ways(visitor: Visitor, words: str) -> list[tuple[str, str]]:
    """Names and where they lead, the first that stands out first."""
    answer = await visitor.post("/palette", {"q": words}, fragment=True)
    assert answer.status == 200
    return [(name.strip(), path) for path, _, name in WAY.findall(answer.text)]


async def test_a_date_comes_first(app: RunningApp) -> None:
    alice = await app.visitor()
    for words, way in {
        "last friday": ("Friday 13 November 2026", "/d/2026-11-13"),
        "12 March 2024": ("Tuesday 12 March 2024", "/d/2024-03-12"),
        "2024-03": ("March 2024", "/calendar/2024-03"),
        "2024": ("2024", "/calendar/2024"),
        "yesterday": ("Thursday 19 November 2026", "/d/2026-11-19"),
        "last fri": ("Friday 13 November 2026", "/d/2026-11-13"),
        "12 mar": ("Thursday 12 March 2026", "/d/2026-03-12"),
        "in febr": ("February 2026", "/calendar/2026-02"),
    }.items():
        assert (await ways(alice, words))[0] == way, words


async def test_pages_and_settings_by_a_part_of_their_names(app: RunningApp) -> None:
    alice = await app.visitor()
    assert (await ways(alice, ""))[0] == ("Write", "/d/today#write")
    assert (await ways(alice, "passph"))[0] == ("Passphrase", "/you#h-passphrase")
    assert (await ways(alice, "signed"))[0] == ("Where you are signed in", "/you#devices")
    assert (await ways(alice, "rdm"))[0] == ("Read the month", "/m/2026-11")
    assert ("Replies", "/you#h-model") in await ways(alice, "repl")
    assert await ways(alice, "nothing is called that") == []


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("size", "set-text_size"),
        ("theme", "set-theme"),
        ("dark", "set-theme"),
        ("light", "set-theme"),
        ("contrast", "set-theme"),
        ("langu", "set-language"),
        ("zone", "zone"),
        ("clock", "set-hours"),
        ("week", "set-week_start"),
        ("enter", "set-enter"),
        ("model", "h-model"),
        ("openings", "openings"),
        ("password", "h-passphrase"),
        ("backup", "h-backup"),
        ("shortcut", "set-letters"),
    ],
)
async def test_each_setting_by_what_one_may_call_it(
    app: RunningApp, words: str, place: str
) -> None:
    """Also where the page speaks another language."""
    alice = await app.visitor()
    assert (await ways(alice, words))[0][1] == f"/you#{place}"
    page = (await alice.get("/you")).text
    assert page.count(f'id="{place}"') == 1
    await alice.post("/you/settings", {"language": "de"})
    assert (await ways(alice, words))[0][1] == f"/you#{place}"


async def test_what_only_has_the_letters_is_left_out_where_something_is_called_so(
    app: RunningApp,
) -> None:
    alice = await app.visitor()
    assert await ways(alice, "theme") == [("Colours", "/you#set-theme")]
    locks = await ways(alice, "lock")
    assert [path for _, path in locks[:2]] == ["/you#devices", "/you#lock-after"]
    assert await ways(alice, "tprmse") == [("The promise", "/you#h-promise")]


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("Schrift", "set-text_size"),
        ("dunkel", "set-theme"),
        ("Design", "set-theme"),
        ("Sprache", "set-language"),
        ("Zeitzone", "zone"),
        ("Uhr", "set-hours"),
        ("Woche", "set-week_start"),
        ("Eingabetaste", "set-enter"),
        ("Modell", "h-model"),
        ("Passwort", "h-passphrase"),
        ("sperren", "lock-after"),
    ],
)
async def test_each_setting_in_german(app: RunningApp, words: str, place: str) -> None:
    alice = await app.visitor()
    await alice.post("/you/settings", {"language": "de"})
    assert (await ways(alice, words))[0][1] == f"/you#{place}"


@pytest.mark.parametrize(
    ("words", "way"),
    [
        ("gestern", ("Donnerstag, 19. November 2026", "/d/2026-11-19")),
        ("12. März", ("Donnerstag, 12. März 2026", "/d/2026-03-12")),
        ("12. März 2024", ("Dienstag, 12. März 2024", "/d/2024-03-12")),
        ("letzten Montag", ("Montag, 16. November 2026", "/d/2026-11-16")),
        ("Freitag", ("Freitag, 20. November 2026", "/d/2026-11-20")),
        ("März", ("März 2026", "/calendar/2026-03")),
        ("last friday", ("Freitag, 13. November 2026", "/d/2026-11-13")),
    ],
)
async def test_german_dates_where_the_page_is_german(
    app: RunningApp, words: str, way: tuple[str, str]
) -> None:
    alice = await app.visitor()
    await alice.post("/you/settings", {"language": "de"})
    assert (await ways(alice, words))[0] == way
    assert (await ways(alice, "letzten Diens"))[0][1] == "/d/2026-11-17"  # while it is typed
    assert (await alice.post("/go", {"when": words})).location == way[1]


async def test_traces_by_name(app: RunningApp) -> None:
    alice, bob = await app.visitor(), await app.visitor("Bob")
    await alice.write("By the weir. #heron")
    await alice.write("In the sink. #octopus")
    assert (await ways(alice, "octo"))[0][0] == "#octopus"  # and not October
    name, path = (await ways(alice, "hero"))[0]
    assert name == "#heron"
    assert "#heron" in (await alice.get(path)).visible_text
    assert not [path for _, path in await ways(bob, "hero") if path.startswith("/traces/")]


async def test_anything_else_is_a_search(app: RunningApp) -> None:
    alice = await app.visitor()
    answer = await alice.post("/palette", {"q": 'the <b>"heron"'}, fragment=True)
    assert (
        '<button role="option" id="palette-item-search" name="q" value="the &lt;b&gt;&#34;heron&#34;"'
        in answer.text
    )
    assert "Search for “the &lt;b&gt;&#34;heron&#34;”" in answer.text
    assert "Search for" not in (await alice.post("/palette", {"q": " "}, fragment=True)).text
    assert (await app.anonymous().post("/palette", {"q": "x"}, fragment=True)).status == 401


def test_the_nearer_the_name_the_less() -> None:
    names = ["Re", "Read me", "Please Read", "Already", "R-E-D-O"]
    assert [match_score("re", name) for name in names] == [0, 0, 1, 2, 3]
    assert match_score("red", "Write") == -1
    assert match_score("schlussel", "Schlüssel") == 0
    assert match_score("x", "axe") == 2
    assert match_score("q", "xaq!z") == 2
    assert match_score("Q", "axe") == -1
