"""The pages, one module each; `blueprints` is all of them."""

from quart import Blueprint

from llamora.app.routes import (
    auth,
    calendar,
    days,
    deleted,
    drafts,
    emoji,
    entries,
    guide,
    palette,
    printing,
    profile,
    replies,
    search,
    settings,
    traces,
)

blueprints: tuple[Blueprint, ...] = (
    auth.blueprint,
    days.blueprint,
    calendar.blueprint,
    entries.blueprint,
    drafts.blueprint,
    deleted.blueprint,
    replies.blueprint,
    search.blueprint,
    palette.blueprint,
    traces.blueprint,
    emoji.blueprint,
    profile.blueprint,
    settings.blueprint,
    guide.blueprint,
    printing.blueprint,
)
