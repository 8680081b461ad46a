"""The palette: one field that leads to a date, a page, a setting, an action or a search."""

from dataclasses import dataclass
from datetime import date

from quart import Blueprint, Response

from llamora.app.addresses import TODAY_PATH, path_for_date, tag_path
from llamora.app.i18n import full_day, gettext_noop, month_name, month_words, weekday_names
from llamora.app.i18n import gettext as _
from llamora.app.pages import current_user, field, render_template
from llamora.app.services.container import get_services
from llamora.dates import MONTHS, WEEKDAYS, UnknownDay, parse_day
from llamora.text import normal_form

blueprint = Blueprint("palette", __name__)

MAX_QUERY_CHARACTERS = 200
MAX_RESULTS = 9
SUBSEQUENCE_SCORE = 3  # for a name that only has the letters, in order

# Settings on the account page: element id, name, and aliases separated by commas.
SETTINGS = (
    ("h-page", *gettext_noop("The page", "settings, appearance")),
    (
        "set-theme",
        *gettext_noop(
            "Colours", "theme, light, dark, contrast, high contrast, night, mode, appearance"
        ),
    ),
    (
        "set-text_size",
        *gettext_noop("Size of the text", "font, text size, small, large, bigger, zoom"),
    ),
    ("set-language", *gettext_noop("Language", "translation, English, German")),
    ("h-zone", *gettext_noop("Time", "date")),
    ("zone", *gettext_noop("Time zone", "zone, city, midnight")),
    ("set-hours", *gettext_noop("The clock shows", "clock, hours, 12, 24, am, pm")),
    ("set-week_start", *gettext_noop("Weeks begin on", "week, first day, Monday, Sunday")),
    ("h-writing", *gettext_noop("Writing", "editor")),
    ("set-enter", *gettext_noop("The Enter key", "Return, new line")),
    ("set-letters", *gettext_noop("Single letters, such as / for search", "shortcuts, keyboard")),
    ("set-suggest", *gettext_noop("Traces for what you just wrote", "suggestions, tags")),
    ("h-model", *gettext_noop("Replies", "model, AI, server, endpoint")),
    ("openings", *gettext_noop("How new days open", "openings, line")),
    ("h-passphrase", *gettext_noop("Passphrase", "password")),
    ("h-recovery", *gettext_noop("Recovery code", "forgotten, lost")),
    ("devices", *gettext_noop("Where you are signed in", "devices, sessions")),
    (
        "lock-after",
        *gettext_noop("A session locks without a sign of you", "idle, timeout, minutes"),
    ),
    ("h-key", *gettext_noop("Key", "encryption")),
    ("h-backup", *gettext_noop("Backup", "export, download, copy, restore")),
    ("h-promise", *gettext_noop("The promise", "privacy, security")),
    ("h-end", *gettext_noop("End this journal", "account, erase, delete everything")),
)
MODEL_SETTINGS = frozenset({"h-model", "openings"})


@dataclass(slots=True, frozen=True)
class PaletteItem:
    """A choice in the palette. `shortcut` is a key that does the same where the page has it.

    `aliases` are other names for it, separated by commas.
    """

    name: str
    path: str = ""
    shortcut: str = ""
    hint: str = ""
    aliases: str = ""


@blueprint.post("/palette")
async def palette_results() -> Response:
    """Show the MAX_RESULTS choices that match a query best; an empty query matches all."""
    query = (await field("q"))[:MAX_QUERY_CHARACTERS].strip()
    items = await _palette_items() + (await _tag_items() if query else [])
    ranked = [
        way for _score, _place, way in sorted(_score_items(query, items), key=lambda each: each[:2])
    ]
    date_item = await _date_item(query) if query else None
    return await render_template(
        "views/palette_results.html",
        items=[*([date_item] if date_item else []), *ranked][:MAX_RESULTS],
        words=query,
        dated=date_item is not None,
    )


async def _date_item(query: str) -> PaletteItem | None:
    today_date = (await current_user()).today
    path = next(
        filter(None, (path_for_date(each, today_date) for each in (query, *_completions(query)))),
        "",
    )
    name = path.rpartition("/")[2]
    try:
        if path.startswith("/d/"):
            day = parse_day(name)
            return PaletteItem(full_day(day), path)
        if len(name) == len("2026-11"):
            return PaletteItem(month_words(parse_day(f"{name}-01")), path)
    except UnknownDay:
        return None
    return PaletteItem(name.lstrip("0"), path) if name else None


def _completions(query: str) -> list[str]:
    """Complete the last word to weekdays and months: "last fri" to "last Friday".

    A single word is left alone, since it may as well begin something else.
    """
    start, blank, last_word = query.rpartition(" ")
    months = [date(2001, number, 1) for number in range(1, 13)]
    names = [
        *WEEKDAYS,
        *MONTHS,
        *(name for name, _short in weekday_names()),
        *map(month_name, months),
    ]
    matches = [
        name
        for name in names
        if start and len(last_word) > 2 and name.casefold().startswith(last_word.casefold())
    ]
    return [start + blank + name for name in matches]


async def _palette_items() -> list[PaletteItem]:
    user = await current_user()
    today_date = user.today
    month = today_date.isoformat()[:7]
    actions = [
        PaletteItem(_("Write"), f"{TODAY_PATH}#write", "n"),
        PaletteItem(_("Today"), TODAY_PATH, "t"),
        PaletteItem(_("Calendar"), f"/calendar/{month}", "c"),
        PaletteItem(_("Read the month"), f"/m/{month}"),
        PaletteItem(_("The whole year"), f"/calendar/{today_date.year:04}"),
        PaletteItem(_("Search"), "/search", "/"),
        PaletteItem(_("Focus"), "", "f"),
        PaletteItem(_("Keys"), "/help", "?"),
        PaletteItem(_("Print"), "/print"),
        PaletteItem(_("Lock"), "/you#devices", "l"),
        PaletteItem(_("Traces"), "/traces"),
        PaletteItem(_("Deleted"), "/deleted"),
    ]
    hidden_settings = MODEL_SETTINGS if not user.profile.replies else frozenset[str]()
    return actions + [
        # English names work in every language.
        PaletteItem(_(name), f"/you#{place}", hint=_("You"), aliases=f"{name}, {also}, {_(also)}")
        for place, name, also in SETTINGS
        if place not in hidden_settings
    ]


async def _tag_items() -> list[PaletteItem]:
    tags = await get_services().journal.tags.list_tags((await current_user()).keys)
    return [PaletteItem(tag.display_name, tag_path(tag.id), hint=_("Traces")) for tag in tags]


def _score_items(query: str, items: list[PaletteItem]) -> list[tuple[int, int, PaletteItem]]:
    scored = [(_score_item(query, way), place, way) for place, way in enumerate(items)]
    scored = [each for each in scored if each[0] >= 0]
    return [each for each in scored if each[0] < SUBSEQUENCE_SCORE] or scored


def _score_item(query: str, item: PaletteItem) -> int:
    scores = [match_score(query, f"{item.name} {item.hint}")]
    if query:
        scores += [
            score for each in item.aliases.split(",") if (score := match_score(query, each)) < 2
        ]
    return min((score for score in scores if score >= 0), default=-1)


def match_score(query: str, name: str) -> int:
    """Return how well a query matches a name: 0 is best, -1 is no match.

    Best is a name that begins with the query, then one with a word that does (1), one that contains
    it (2), and one that has its letters in the same order (SUBSEQUENCE_SCORE). Case and accents are
    ignored.
    """
    folded_query, folded_name = _fold(query), _fold(name)
    if folded_name.startswith(folded_query):
        return 0
    if f" {folded_query}" in folded_name:
        return 1
    if folded_query in folded_name:
        return 2
    letters = iter(folded_name)
    return (
        SUBSEQUENCE_SCORE
        if len(folded_query) > 1
        and all(letter in letters for letter in folded_query if letter != " ")
        else -1
    )


def _fold(text: str) -> str:
    letters = (letter for letter in normal_form("NFKD", text) if not "\u0300" <= letter <= "\u036f")
    return " ".join("".join(letters).casefold().split())
