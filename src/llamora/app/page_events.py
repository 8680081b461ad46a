"""The events of open pages."""

import asyncio
import json
from collections.abc import AsyncGenerator
from datetime import date

from llamora.app.pages import html_attributes
from llamora.app.services.container import get_services
from llamora.app.streams import format_event
from llamora.app.views.entries import tags_fingerprint
from llamora.app.views.months import days_of_month
from llamora.journal.context import UserContext

MONTH_EVENT_SECONDS = 2


async def look_events(user: UserContext) -> AsyncGenerator[bytes]:
    """Yield how pages look, at first and whenever it changes."""
    services, last_attributes = get_services(), None
    yield format_event(name="open")
    while True:
        next_change = services.changes.next_change
        attributes = html_attributes(await services.accounts.get_profile(user.keys))
        if attributes != last_attributes:
            last_attributes = attributes
            yield format_event(json.dumps(attributes), name="look")
        await next_change.wait()


async def day_events(user: UserContext, day: date) -> AsyncGenerator[bytes]:
    """Yield the messages of a day, at first and whenever they change.

    Each is [id, revision, root id, tags fingerprint]; a reply that is still being written has the
    revision 0, since `reply_events` reports on it. The id of the event is the day.
    """
    services, last_state, last_listing = get_services(), None, None
    while True:
        next_change = services.changes.next_change
        if (state := await services.days.get_fingerprint(user.keys, [day])) != last_state:
            last_state = state
            listing = await _message_listing(user, day)
            if listing != last_listing:
                last_listing = listing
                yield format_event(json.dumps(listing), name="page", event_id=day.isoformat())
        await next_change.wait()


async def month_events(user: UserContext, month: date) -> AsyncGenerator[bytes]:
    """Yield the fingerprint of a month, at first and at most every MONTH_EVENT_SECONDS.

    The id of the event is the month, as in addresses.
    """
    services, last_fingerprint = get_services(), None
    while True:
        next_change = services.changes.next_change
        fingerprint = await services.days.get_fingerprint(user.keys, days_of_month(month))
        if fingerprint != last_fingerprint:
            last_fingerprint = fingerprint
            yield format_event(fingerprint, name="month", event_id=month.isoformat()[:7])
            await asyncio.sleep(MONTH_EVENT_SECONDS)  # a growing reply changes all the time
        await next_change.wait()


async def _message_listing(user: UserContext, day: date) -> list[list[str | int]]:
    services, keys = get_services(), user.keys
    profile = await services.accounts.get_profile(keys)
    messages = [
        (entry, thread.root.id)
        for thread in await services.journal.get_page(keys, day)
        for entry in thread.messages
        if profile.replies or entry.role == "me"
    ]
    tags_by_entry = await services.journal.tags.tags_of(keys, [entry.id for entry, _ in messages])
    return [
        [
            entry.id.hex(),
            0 if entry.state == "streaming" else entry.revision,
            root.hex(),
            tags_fingerprint(tags_by_entry.get(entry.id, ())),
        ]
        for entry, root in messages
    ]
