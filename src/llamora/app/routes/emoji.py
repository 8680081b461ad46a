"""Completion of emoji names."""

from functools import cache

from quart import Blueprint, Response

from llamora.app import i18n
from llamora.app.pages import field, render_template

blueprint = Blueprint("emoji", __name__)

MAX_SUGGESTIONS = 6
SKIN_TONES = frozenset(
    "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
)  # modifiers of other emoji


@blueprint.post("/emoji")
async def suggest_emoji() -> Response:
    """Show emoji with a name, or a word of one, that begins with `q`.

    Names that begin with it come first, then shorter ones.
    """
    prefix = (await field("q")).strip().casefold()
    names = _emoji_names(i18n.current_language().code) if prefix else ()
    suggestions: dict[str, str] = {}
    for name, emoji_text in sorted(names, key=lambda each: not each[0].startswith(prefix)):
        if len(suggestions) < MAX_SUGGESTIONS and (name.startswith(prefix) or f"_{prefix}" in name):
            suggestions.setdefault(emoji_text, name)
    return await render_template("views/emoji.html", named=suggestions)


@cache
def _emoji_names(language: str) -> tuple[tuple[str, str], ...]:
    """Return (name, emoji), shortest first, in the language and in English, with aliases."""
    import emoji

    if language in emoji.LANGUAGES:
        emoji.config.load_language(language)
    fully_qualified = emoji.STATUS["fully_qualified"]
    names = {
        (name.strip(":").casefold(), sign)
        for sign, known in emoji.EMOJI_DATA.items()
        if known["status"] == fully_qualified and SKIN_TONES.isdisjoint(sign)
        for name in (known.get(language, known["en"]), known["en"], *known.get("alias", ()))
    }
    return tuple(sorted(names, key=lambda each: (len(each[0]), each)))
