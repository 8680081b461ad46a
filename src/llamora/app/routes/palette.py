"""The palette: one field that leads to a date, a page, a setting, an action or a search."""

from dataclasses import dataclass

from quart import Blueprint, Response

from llamora.app import security
from llamora.app.languages import day_words, month_words, weekday
from llamora.app.languages import gettext as _
from llamora.app.pages import TODAY_PATH, field, model_hidden, page, today
from llamora.app.routes.calendar import place_of
from llamora.app.services.container import get_services
from llamora.app.views import trace_path
from llamora.clock import UnknownDay, parse_day
from llamora.text import normal_form

blueprint = Blueprint("palette", __name__)

WORDS = 200
MOST = 9


@dataclass(slots=True, frozen=True)
class Way:
    """One thing to choose. `path` is where it leads; `press` is a key that does the same where the page has it."""

    name: str
    path: str = ""
    press: str = ""
    hint: str = ""


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
    path = place_of(words, await today())
    name = path.rpartition("/")[2]
    try:
        if path.startswith("/d/"):
            day = parse_day(name)
            return Way(f"{weekday(day)} {day_words(day)}", path)
        if len(name) == len("2026-11"):
            return Way(month_words(parse_day(f"{name}-01")), path)
    except UnknownDay:
        return None
    return Way(name.lstrip("0"), path) if name else None


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
    sections = [
        ("h-page", _("The page")),
        ("h-zone", _("Time")),
        ("h-writing", _("Writing")),
        ("h-model", _("Replies")),
        ("h-passphrase", _("Passphrase")),
        ("h-recovery", _("Recovery code")),
        ("devices", _("Where you are signed in")),
        ("h-key", _("Key")),
        ("h-backup", _("Backup")),
        ("h-promise", _("The promise")),
        ("h-end", _("End this journal")),
    ]
    if await model_hidden():
        sections = [(anchor, name) for anchor, name in sections if anchor != "h-model"]
    return actions + [Way(name, f"/you#{anchor}", hint=_("You")) for anchor, name in sections]


async def _traces() -> list[Way]:
    found = await get_services().journal.traces.all(security.session().keys)
    return [Way(trace.shown, trace_path(trace.id), hint=_("Traces")) for trace in found]


def _scored(words: str, known: list[Way]) -> list[tuple[int, int, Way]]:
    found = [(likeness(words, f"{way.name} {way.hint}"), place, way) for place, way in enumerate(known)]
    return [(score, place, way) for score, place, way in found if score >= 0]


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
    return 3 if len(asked) > 1 and all(letter in letters for letter in asked if letter != " ") else -1


def _folded(text: str) -> str:
    bare = (letter for letter in normal_form("NFKD", text) if not "\u0300" <= letter <= "\u036f")
    return " ".join("".join(bare).casefold().split())
