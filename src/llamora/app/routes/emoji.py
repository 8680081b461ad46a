"""Emoji by the beginning of a name, for completion while one writes."""

from functools import cache

from quart import Blueprint, Response

from llamora.app import i18n, security
from llamora.app.pages import field, page

blueprint = Blueprint("emoji", __name__)

OFFERED = 6
SKIN = frozenset("\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")  # what colours another emoji


@blueprint.post("/emoji")
async def find() -> Response:
    """Those whose name, or a word of it, begins with what is being typed; the shortest name first."""
    security.session()
    typed = (await field("q")).strip().casefold()
    known = _names(i18n.current().code) if typed else ()
    named: dict[str, str] = {}
    for name, sign in sorted(known, key=lambda each: not each[0].startswith(typed)):
        if len(named) < OFFERED and (name.startswith(typed) or f"_{typed}" in name):
            named.setdefault(sign, name)
    return await page("components/emoji.html", named=named)


@cache
def _names(language: str) -> tuple[tuple[str, str], ...]:
    """(name, emoji) by the length of the name: in the language, in English, and what else each is called."""
    import emoji

    if language in emoji.LANGUAGES:
        emoji.config.load_language(language)
    whole = emoji.STATUS["fully_qualified"]
    found = {
        (name.strip(":").casefold(), sign)
        for sign, known in emoji.EMOJI_DATA.items()
        if known["status"] == whole and SKIN.isdisjoint(sign)
        for name in (known.get(language, known["en"]), known["en"], *known.get("alias", ()))
    }
    return tuple(sorted(found, key=lambda each: (len(each[0]), each)))
