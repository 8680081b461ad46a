"""The routes, one module per subject; `blueprints` holds all of them."""

from quart import Blueprint

from llamora.app.routes import (
    account,
    auth,
    calendar,
    days,
    drafts,
    emoji,
    entries,
    palette,
    preferences,
    printing,
    replies,
    search,
    tags,
    trash,
)
from llamora.app.routes import help as help_page

blueprints: tuple[Blueprint, ...] = (
    auth.blueprint,
    days.blueprint,
    calendar.blueprint,
    entries.blueprint,
    drafts.blueprint,
    trash.blueprint,
    replies.blueprint,
    search.blueprint,
    palette.blueprint,
    tags.blueprint,
    emoji.blueprint,
    account.blueprint,
    preferences.blueprint,
    help_page.blueprint,
    printing.blueprint,
)
