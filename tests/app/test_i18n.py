"""The interface in other languages: catalogues that are whole, templates without bare words, dates and numbers."""

import re
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po
from hypothesis import given, settings
from hypothesis import strategies as st

from llamora.app import i18n
from llamora.app.i18n import CATALOGUE_FOLDER
from llamora.app.views.receipts import describe_omitted
from llamora.errors import Notice, Problem
from llamora.journal.throttle import TooManyAttempts
from llamora.messages import PAGE_MESSAGES
from llamora.persistence.entries import Omitted
from scripts.translations import extract_messages, find_faults, messages
from tests.app.conftest import RunningApp

TEMPLATES = sorted((Path(i18n.__file__).parent / "templates").rglob("*.html"))
JINJA = re.compile(
    r"\{\{.*?\}\}|\{%-? *trans.*?endtrans *-?%\}|\{% block kind %\}.*?\{% endblock %\}|\{%.*?%\}|\{#.*?#\}",
    re.DOTALL,
)
TAG = re.compile(r"<[^<>]*>")
SPOKEN = re.compile(r'\s(?:placeholder|aria-label|title|alt|abbr)="([^"]*)"')
NAMES = re.compile(r"Llamora|&\w+;|\b[a-z]\b")  # the wordmark, and the keys that are one letter


def catalogue(file: Path) -> Catalog:
    with file.open("rb") as source:
        return read_po(source, locale=file.stem.replace("-", "_"))


@pytest.mark.parametrize("file", sorted(CATALOGUE_FOLDER.glob("*.po")), ids=lambda file: file.stem)
def test_everything_is_translated(file: Path) -> None:
    there = catalogue(file)
    assert list(find_faults(there)) == []
    ids = [message.id for message in there if message.id]
    said = {each if isinstance(each, str) else tuple(each) for each in ids}
    wanted = set(messages())
    assert said == wanted, "run python -m scripts.translations and fill in what is new"


def test_german_is_among_them() -> None:
    found = i18n.load()
    assert {"en", "de"} <= set(found)
    assert (found["de"].name, found["de"].direction) == ("Deutsch", "ltr")


@pytest.mark.parametrize(
    ("message", "translation", "fault"),
    [
        ("Keep", "", "not translated: Keep"),
        ("after %(seconds)s s", "nach %(sekunden)s s", "other blanks: after %(seconds)s s"),
        ("Wait {seconds} seconds.", "Warte.", "other blanks: Wait {seconds} seconds."),
        ("Read <em>this</em>.", "Lies dies.", "other blanks: Read <em>this</em>."),
        (
            ("one page", "%(num)s pages"),
            ("%(num)s Seite", "%(nr)s Seiten"),
            "other blanks: one page",
        ),
        (("one page", "%(num)s pages"), ("eine Seite", ""), "not translated: one page"),
    ],
)
def test_a_fault_is_found(
    message: str | tuple[str, str], translation: str | tuple[str, str], fault: str
) -> None:
    there = Catalog(locale="de")
    there.add(message, translation)
    assert list(find_faults(there)) == [fault]


def test_a_translation_in_doubt_is_a_fault() -> None:
    there = Catalog(locale="de")
    there.add("Keep", "Behalten", flags=["fuzzy"])
    assert list(find_faults(there)) == ["in doubt: Keep"]


def bare_words(source: str) -> list[str]:
    """What a template says without asking the catalogue."""
    html = JINJA.sub("", source)
    spoken = [*TAG.sub("\n", html).splitlines(), *SPOKEN.findall(html)]
    return [text.strip() for text in spoken if re.search(r"[A-Za-z]", NAMES.sub("", text))]


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.stem)
def test_no_template_holds_bare_words(file: Path) -> None:
    if file.name != "draft_attributes.html":  # attributes only
        assert bare_words(file.read_text(encoding="utf-8")) == []


def test_bare_words_are_found() -> None:
    assert bare_words(
        '<p>{{ _("Kept") }} and more</p><input placeholder="Write"><b>{% if x %}Old{% endif %}</b>'
    ) == [
        "and more",
        "Old",
        "Write",
    ]


def test_what_is_marked_is_collected_from_python() -> None:
    source = """
def f(error, n):
    raise Wrong("wrong_number", number=n)
    return _("a label"), ngettext("one", "more", n), gettext_noop("first", "second"), "Not this one."
"""
    assert list(extract_messages(source)) == ["a label", ("one", "more"), "first", "second"]


# -- codes -------------------------------------------------------------------------------------------

GERMAN = {"Accept-Language": "de-AT,de;q=0.9,en;q=0.5"}
BLANK = re.compile(r"\{(\w+)\}")


@pytest.mark.parametrize(
    ("what", "english", "german"),
    [
        (None, "", ""),
        ("", "", ""),
        ("strength_hard", "Hard to guess.", "Schwer zu erraten."),
        (
            TooManyAttempts("too_many_attempts", seconds=8),
            "Too many tries. Wait 8 seconds, then try again.",
            "Zu viele Versuche. Warte 8 Sekunden und versuch es dann noch einmal.",
        ),
        (
            Notice("server_rejected", {"place": "http://x", "status": 400}),
            "The model server at http://x did not accept the request (HTTP 400): check llm.upstream.host and model.",
            "Der Modellserver unter http://x nahm die Anfrage nicht an (HTTP 400): Prüfe llm.upstream.host und model.",
        ),
    ],
)
async def test_a_code_is_described(
    app: RunningApp, what: Problem | Notice | str | None, english: str, german: str
) -> None:
    async with app.app.test_request_context("/"):
        assert i18n.describe(what) == english
    async with app.app.test_request_context("/", headers=GERMAN):
        assert i18n.describe(what) == german


async def test_what_fills_a_blank_is_never_changed(app: RunningApp) -> None:
    german = i18n.load()["de"].catalogue
    codes = sorted(code for code, sentence in PAGE_MESSAGES.items() if BLANK.search(sentence))
    words = st.sampled_from(sorted(m for m in messages() if isinstance(m, str))) | st.text()

    @settings(max_examples=300, deadline=None)
    @given(st.sampled_from(codes), words)
    def check(code: str, word: str) -> None:
        sentence = german.gettext(PAGE_MESSAGES[code])
        notice = Notice(code, dict.fromkeys(BLANK.findall(sentence), word))
        assert i18n.describe(notice) == BLANK.sub(lambda _: word, sentence)

    async with app.app.test_request_context("/", headers=GERMAN):
        check()


async def test_the_words_of_a_query_stay_as_they_are(app: RunningApp) -> None:
    alice = await app.visitor(headers=GERMAN)
    found = await alice.post("/search", {"q": '"Delete" -Delete'}, fragment=True)
    assert "„Delete“ ist zugleich gesucht und weggelassen." in found.visible_text


# -- pages -------------------------------------------------------------------------------------------


async def test_before_sign_in_the_browser_says_which_language(app: RunningApp) -> None:
    page = await app.anonymous(GERMAN).get("/sign-in")
    assert '<html lang="de" dir="ltr"' in page.text
    assert "Willkommen zurück" in page.visible_text
    assert (
        '<html lang="en" dir="ltr"'
        in (await app.anonymous({"Accept-Language": "fr"}).get("/sign-in")).text
    )


async def test_refusals_speak_the_language_too(app: RunningApp) -> None:
    stranger = app.anonymous(GERMAN)
    wrong = await stranger.post("/sign-in", {"name": "Alice", "passphrase": "wrong"})
    assert wrong.error_sentence == "Dieser Name und diese Passphrase gehören nicht zusammen."
    alice = await app.visitor(headers=GERMAN)
    missing = await alice.get("/nowhere")
    assert (missing.status, missing.error_sentence) == (
        404,
        "Unter dieser Adresse gibt es keine Seite.",
    )
    empty = await alice.post("/d/2026-11-20/entries", {"text": " "}, fragment=True)
    assert empty.error_sentence == "Es gibt noch nichts zu behalten. Schreib zuerst eine Zeile."


async def test_dates_are_written_as_the_language_writes_them(app: RunningApp) -> None:
    german, english = await app.visitor(headers=GERMAN), await app.visitor("Bob")
    assert "Freitag 20. November 2026" in (await german.get("/d/2026-11-20")).visible_text
    assert "Friday 20 November 2026" in (await english.get("/d/2026-11-20")).visible_text
    assert "März 2024" in (await german.get("/calendar/2024-03")).visible_text


async def test_dates_at_the_ends_of_the_calendar(app: RunningApp) -> None:
    async with app.app.test_request_context("/", headers=GERMAN):
        assert i18n.day_words(date.min) == "1. Januar 1"
        assert i18n.short_day(date(2024, 3, 2)) == "2. März 2024"
        assert i18n.weekday(date.max) == "Freitag"
        assert i18n.number_words(1234.56, 1) == "1.234,6"
        assert [short for _, short in i18n.weekday_names()] == [
            "Mo",
            "Di",
            "Mi",
            "Do",
            "Fr",
            "Sa",
            "So",
        ]
    async with app.app.test_request_context("/"):
        assert i18n.day_words(date(2024, 3, 2)) == "2 March 2024"
        assert i18n.month_words(date(2024, 3, 2)) == "March 2024"
        assert i18n.time_words(datetime(2024, 3, 2, 19, 5, tzinfo=UTC), ZoneInfo("UTC")) == "19:05"
        assert [short for _, short in i18n.weekday_names()] == [
            "Mo",
            "Tu",
            "We",
            "Th",
            "Fr",
            "Sa",
            "Su",
        ]


async def test_what_was_left_out_of_a_prompt_is_said_in_the_language(app: RunningApp) -> None:
    omitted = Omitted(notes=1, passages=2, shortened=True)
    async with app.app.test_request_context("/", headers=GERMAN):
        assert describe_omitted(omitted) == (
            "Aus Platzmangel weggelassen: 1 Notiz des Tages, 2 frühere Stellen und die Mitte des Eintrags."
        )
        assert describe_omitted(Omitted()) == ""
    async with app.app.test_request_context("/"):
        assert describe_omitted(omitted) == (
            "Left out for lack of room: 1 note of the day, 2 earlier passages and the middle of the entry."
        )
        assert (
            describe_omitted(Omitted(turns=1))
            == "Left out for lack of room: 1 turn of the conversation."
        )
