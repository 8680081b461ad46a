"""Settings: each takes effect at once, on every page and device of the writer."""

from collections.abc import Callable

from quart import Blueprint, Response

from llamora.app import i18n, security
from llamora.app.pages import field, is_fragment, save_profile, see_other
from llamora.app.routes.account import Part, kept, show_you
from llamora.dates import zone_names
from llamora.journal.profile import TEXT_SIZES, THEMES, WEEK_STARTS
from llamora.persistence.connection import StorageError

blueprint = Blueprint("settings", __name__)

SECTIONS: dict[str, Part] = {"zone": "zone", "writing": "writing"}
NO_CHOICE = "That is not one of the choices. Choose one of the list."


@blueprint.post("/you/settings")
async def change() -> Response:
    """Save what was changed in a form of settings; what it holds besides may be changed elsewhere by now."""
    security.session()
    section = SECTIONS.get(await field("section"), "page")
    changes: dict[str, object] = {}
    for name, read in FIELDS.items():
        wanted = (await security.form_fields(name))[:1]
        if wanted and wanted != await security.form_fields(f"was-{name}"):
            try:
                changes.update(read(wanted[0]))
            except (KeyError, ValueError):
                return await show_you(422, section, NO_CHOICE)
    try:
        if changes:
            await save_profile(**changes)
    except StorageError as error:
        return await show_you(507, section, str(error))
    if not is_fragment():
        return see_other(f"/you?done={section}#h-{section}")
    if "language" in changes:
        return Response(headers={"HX-Redirect": "/you?done=language"})
    return kept()


def _language(code: str) -> dict[str, object]:
    return {"language": i18n.known()[code].code if code else ""}


def _zone(name: str) -> dict[str, object]:
    if name not in zone_names():
        raise ValueError
    return {"zone": name}


def _one_of(name: str, choices: dict[str, object]) -> Callable[[str], dict[str, object]]:
    return lambda wanted: {name: choices[wanted]}


FIELDS: dict[str, Callable[[str], dict[str, object]]] = {
    "theme": _one_of("theme", {theme: theme for theme in THEMES}),
    "text_size": _one_of("text_size", {str(size): size for size in TEXT_SIZES}),
    "language": _language,
    "zone": _zone,
    "hours": _one_of("twelve_hours", {"24": False, "12": True}),
    "week_start": _one_of("week_start", {str(day): day for day in WEEK_STARTS}),
    "enter": _one_of("enter_keeps", {"line": False, "keep": True}),
    "suggest": _one_of("suggestions", {"off": False, "on": True}),
    "letters": _one_of("letter_keys", {"on": True, "off": False}),
}
