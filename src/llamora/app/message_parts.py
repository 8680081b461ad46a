"""The HTML of a user's message as pages show it, remembered with the HTML of its text."""

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from quart import g

from llamora.app import i18n
from llamora.app.edge import sessions
from llamora.app.pages import get_template
from llamora.app.rendering import get_renderer
from llamora.app.views.entries import EntryView

# Present only where a message is shown by itself after something was done to it.
PASSING_VARIABLES = ("is_more_open", "suggest_on_load", "tasks_problem")


@pass_context
def message_parts(context: Context, entry: EntryView) -> tuple[Markup, Markup]:
    """Return a message's time, and its text with tags and actions; a template calls this.

    What holds a form is made anew each time: its token is that of one session.
    """
    passing = {name: context[name] for name in PASSING_VARIABLES if context.get(name)}
    model = context["model"]

    def render() -> tuple[Markup, Markup]:
        template = get_template("views/message_parts.html")
        own_context = template.new_context({"entry": entry, "model": model, **passing})
        when, content = (
            Markup("".join(template.blocks[name](own_context)))  # noqa: S704 -- from a template
            for name in ("when", "content")
        )
        return when, content

    if passing or entry.has_checkboxes:
        return render()
    key = (
        bytes.fromhex(entry.id),
        *(entry.root, entry.html, entry.at, entry.zone, entry.day, entry.edited),
        *(entry.part, entry.withheld, entry.reply_count > 0, entry.tags_fingerprint),
        *(model.available, model.hidden),
        *(i18n.current_language().code, g.get("twelve_hours"), g.get("day_ends_at"), g.get("year")),
    )
    cache = get_renderer().cache_for(sessions.require_session().keys)
    return cache.get(key, render, lambda parts: sum(map(len, parts)))
