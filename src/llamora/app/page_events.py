"""The events of an open page."""

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


async def page_events(
    user: UserContext, day: date | None, month: date | None
) -> AsyncGenerator[bytes]:
    """Yield the look of pages, and the messages of `day` or the fingerprint of `month`.

    Each is sent at first and whenever it changes. A message is [id, revision, root id, tags
    fingerprint]; a reply that is still being written has the revision 0, since its own stream
    reports on it. The fingerprint of a month is sent at most every MONTH_EVENT_SECONDS.
    """
    services, keys = get_services(), user.keys
    yield format_event(name="open")
    last_state = last_attributes = last_listing = last_fingerprint = None
    while True:
        next_change = services.changes.next_change
        attributes = html_attributes(await services.accounts.get_profile(keys))
        if attributes != last_attributes:
            last_attributes = attributes
            yield format_event(json.dumps(attributes), name="look")
        if day and (state := await services.days.get_fingerprint(keys, [day])) != last_state:
            last_state = state
            listing = await _message_listing(user, day)
            if listing != last_listing:
                last_listing = listing
                yield format_event(json.dumps(listing), name="page")
        if month:
            fingerprint = await services.days.get_fingerprint(keys, days_of_month(month))
            if fingerprint != last_fingerprint:
                last_fingerprint = fingerprint
                yield format_event(fingerprint, name="month")
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
