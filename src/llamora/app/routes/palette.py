"""The palette: one field that leads to a date, a page, a setting, an action or a search."""

from dataclasses import dataclass
from datetime import date

from quart import Blueprint, Response

from llamora.app import security
from llamora.app.i18n import full_day, marked, month_name, month_words, weekday_names
from llamora.app.i18n import gettext as _
from llamora.app.pages import TODAY_PATH, field, model_hidden, page, today
from llamora.app.routes.calendar import place_of
from llamora.app.services.container import get_services
from llamora.app.views import trace_path
from llamora.dates import MONTHS, WEEKDAYS, UnknownDay, parse_day
from llamora.text import normal_form

blueprint = Blueprint("palette", __name__)

WORDS = 200
MOST = 9
SCATTERED = 3  # the likeness of a name that only has the letters, here and there

# What the page about the writer has: a place on it, its name, and what else somebody may call it.
SETTINGS = (
    ("h-page", *marked("The page", "settings, appearance")),
    ("set-theme", *marked("Colours", "theme, light, dark, contrast, high contrast, night, mode, appearance")),
    ("set-text_size", *marked("Size of the text", "font, text size, small, large, bigger, zoom")),
    ("set-language", *marked("Language", "translation, English, German")),
    ("h-zone", *marked("Time", "date")),
    ("zone", *marked("Time zone", "zone, city, midnight")),
    ("set-hours", *marked("The clock shows", "clock, hours, 12, 24, am, pm")),
    ("set-week_start", *marked("Weeks begin on", "week, first day, Monday, Sunday")),
    ("h-writing", *marked("Writing", "editor")),
    ("set-enter", *marked("The Enter key", "Return, new line")),
    ("set-letters", *marked("Single letters, such as / for search", "shortcuts, keyboard")),
    ("set-suggest", *marked("Traces for what you just wrote", "suggestions, tags")),
    ("h-model", *marked("Replies", "model, AI, server, endpoint")),
    ("openings", *marked("How new days open", "openings, line")),
    ("h-passphrase", *marked("Passphrase", "password")),
    ("h-recovery", *marked("Recovery code", "forgotten, lost")),
    ("devices", *marked("Where you are signed in", "devices, sessions")),
    ("lock-after", *marked("A session locks without a sign of you", "idle, timeout, minutes")),
    ("h-key", *marked("Key", "encryption")),
    ("h-backup", *marked("Backup", "export, download, copy, restore")),
    ("h-promise", *marked("The promise", "privacy, security")),
    ("h-end", *marked("End this journal", "account, erase, delete everything")),
)
OF_THE_MODEL = frozenset({"h-model", "openings"})


@dataclass(slots=True, frozen=True)
class Way:
    """One thing to choose. `path` is where it leads; `press` is a key that does the same where the page has it.

    `also` is what else it may be called, with commas between.
    """

    name: str
    path: str = ""
    press: str = ""
    hint: str = ""
    also: str = ""


@blueprint.post("/palette")
async def ways() -> Response:
    """What the words may mean, the likeliest first; for no words, what there is."""
    security.session()
    words = (await field("q"))[:WORDS].strip()
    known = await _known() + (await _traces() if words else [])
    found = [way for _score, _place, way in sorted(_scored(words, known), key=lambda each: each[:2])]
    date = await _date(words) if words else None
    return await page(
        "components/ways.html", ways=[*([date] if date else []), *found][:MOST], words=words, dated=date is not None
    )


async def _date(words: str) -> Way | None:
    """The way to a date that was typed: a day, a month or a year."""
    now = await today()
    path = next(filter(None, (place_of(each, now) for each in (words, *_finished(words)))), "")
    name = path.rpartition("/")[2]
    try:
        if path.startswith("/d/"):
            day = parse_day(name)
            return Way(full_day(day), path)
        if len(name) == len("2026-11"):
            return Way(month_words(parse_day(f"{name}-01")), path)
    except UnknownDay:
        return None
    return Way(name.lstrip("0"), path) if name else None


def _finished(words: str) -> list[str]:
    """What is typed with its last word as a day of the week or a month: "last fri" for "last Friday".

    One word alone is as likely the beginning of something else.
    """
    said, blank, begun = words.rpartition(" ")
    months = [date(2001, number, 1) for number in range(1, 13)]
    names = [*WEEKDAYS, *MONTHS, *(name for name, _short in weekday_names()), *map(month_name, months)]
    fitting = [name for name in names if said and len(begun) > 2 and name.casefold().startswith(begun.casefold())]
    return [said + blank + name for name in fitting]


async def _known() -> list[Way]:
    now = await today()
    month = now.isoformat()[:7]
    actions = [
        Way(_("Write"), f"{TODAY_PATH}#write", "n"),
        Way(_("Today"), TODAY_PATH, "t"),
        Way(_("Calendar"), f"/calendar/{month}", "c"),
        Way(_("Read the month"), f"/m/{month}"),
        Way(_("The whole year"), f"/calendar/{now.year:04}"),
        Way(_("Search"), "/search", "/"),
        Way(_("Focus"), "", "f"),
        Way(_("Keys"), "/help", "?"),
        Way(_("Print"), "/print"),
        Way(_("Lock"), "/you#devices", "l"),
        Way(_("Traces"), "/traces"),
        Way(_("Deleted"), "/deleted"),
    ]
    hidden = OF_THE_MODEL if await model_hidden() else frozenset[str]()
    return actions + [
        # English names stay known in every language.
        Way(_(name), f"/you#{place}", hint=_("You"), also=f"{name}, {also}, {_(also)}")
        for place, name, also in SETTINGS
        if place not in hidden
    ]


async def _traces() -> list[Way]:
    found = await get_services().journal.tags.list_tags(security.session().keys)
    return [Way(trace.display_name, trace_path(trace.id), hint=_("Traces")) for trace in found]


def _scored(words: str, known: list[Way]) -> list[tuple[int, int, Way]]:
    found = [(_nearest(words, way), place, way) for place, way in enumerate(known)]
    found = [each for each in found if each[0] >= 0]
    return [each for each in found if each[0] < SCATTERED] or found


def _nearest(words: str, way: Way) -> int:
    """The likeness to the name, or to what else it is called as far as that begins with the words."""
    scores = [likeness(words, f"{way.name} {way.hint}")]
    if words:
        scores += [score for each in way.also.split(",") if (score := likeness(words, each)) < 2]
    return min((score for score in scores if score >= 0), default=-1)


def likeness(words: str, name: str) -> int:
    """How near typed words are to a name, 0 the nearest, -1 not at all.

    Nearest is a name that begins with them, then one with a word that does, then one that contains them, then one
    that has their letters in their order. Case and accents do not count.
    """
    asked, known = _folded(words), _folded(name)
    if known.startswith(asked):
        return 0
    if f" {asked}" in known:
        return 1
    if asked in known:
        return 2
    letters = iter(known)
    return SCATTERED if len(asked) > 1 and all(letter in letters for letter in asked if letter != " ") else -1


def _folded(text: str) -> str:
    bare = (letter for letter in normal_form("NFKD", text) if not "\u0300" <= letter <= "\u036f")
    return " ".join("".join(bare).casefold().split())
