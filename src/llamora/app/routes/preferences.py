"""Settings that take effect at once, on every page and device of the user."""

from collections.abc import Callable

from quart import Blueprint, Response

from llamora.app import i18n
from llamora.app.account_pages import AccountSection, account_page, save_setting
from llamora.app.edge import forms
from llamora.app.i18n import gettext as _
from llamora.app.pages import field
from llamora.dates import zone_names
from llamora.journal.profile import DAY_ENDS, MAX_ZONE_CHARACTERS, TEXT_SIZES, THEMES, WEEK_STARTS

blueprint = Blueprint("preferences", __name__)

SECTION_NAMES: dict[str, AccountSection] = {"zone": "zone", "writing": "writing"}


@blueprint.post("/you/settings")
async def change_settings() -> Response:
    """Save the settings that were changed in a form.

    Unchanged fields are not saved: they may have been changed elsewhere meanwhile.
    """
    section = SECTION_NAMES.get(await field("section"), "page")
    changes: dict[str, object] = {}
    for name, parse in FIELD_PARSERS.items():
        submitted = (await forms.form_fields(name))[:1]
        if submitted and submitted != await forms.form_fields(f"was-{name}"):
            try:
                changes.update(parse(submitted[0]))
            except (KeyError, ValueError):
                return await account_page(
                    section, _("That is not one of the choices. Choose one of the list.")
                )
    is_asked_by_day = bool(await field("from_day"))
    to = "/d/today" if is_asked_by_day else f"/you?done={section}#h-{section}"
    return await save_setting(section, to, **changes)


def _parse_language(code: str) -> dict[str, object]:
    return {"language": i18n.available_languages()[code].code if code else ""}


def _parse_zone(name: str) -> dict[str, object]:
    if name not in zone_names():
        raise ValueError
    return {"zone": name, "unknown_zone": "", "dismissed_zone": ""}


def _parse_dismissed_zone(name: str) -> dict[str, object]:
    if len(name) > MAX_ZONE_CHARACTERS:
        raise ValueError
    return {"dismissed_zone": name}


def _parse_choice(name: str, choices: dict[str, object]) -> Callable[[str], dict[str, object]]:
    return lambda wanted: {name: choices[wanted]}


FIELD_PARSERS: dict[str, Callable[[str], dict[str, object]]] = {
    "theme": _parse_choice("theme", {theme: theme for theme in THEMES}),
    "text_size": _parse_choice("text_size", {str(size): size for size in TEXT_SIZES}),
    "language": _parse_language,
    "zone": _parse_zone,
    "dismissed_zone": _parse_dismissed_zone,
    "day_ends": _parse_choice("day_ends_at", {str(hour): hour for hour in DAY_ENDS}),
    "hours": _parse_choice("twelve_hours", {"24": False, "12": True}),
    "week_start": _parse_choice("week_start", {str(day): day for day in WEEK_STARTS}),
    "enter": _parse_choice("enter_keeps", {"line": False, "keep": True}),
    "suggest": _parse_choice("suggestions", {"off": False, "on": True}),
    "letters": _parse_choice("letter_keys", {"on": True, "off": False}),
}
