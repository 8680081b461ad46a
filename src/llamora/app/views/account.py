"""The account page, with the settings."""

from datetime import datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from llamora.app import i18n
from llamora.app.edge import sessions
from llamora.app.i18n import gettext as _
from llamora.app.i18n import ngettext
from llamora.app.services.container import get_services
from llamora.app.views.model import model_view
from llamora.dates import day_of, utc_now, zone_names
from llamora.journal.context import UserContext
from llamora.journal.profile import DAY_ENDS, LOCK_MINUTES, WEEK_STARTS
from llamora.journal.session_keys import SessionInfo

SAMPLE_TIME = time(19, 42)


async def account_context(user: UserContext, *, endpoint: str | None = None) -> dict[str, Any]:
    """Return what the account page shows.

    `endpoint` preselects a model server that is not saved.
    """
    services, profile = get_services(), user.profile
    session = sessions.require_session()
    state = await services.access.get_state(session)
    max_idle = services.settings.session.idle_ttl
    return {
        "name": state.user.name,
        "recovery_confirmed": state.user.recovery_confirmed,
        "profile": profile,
        "is_changing_key": state.is_changing_key,
        "unreadable_count": state.unreadable_count,
        "checksum": state.checksum,
        "sessions": [
            _session_row(listed, session.id, user.zone)
            for listed in _first(state.sessions, session.id)
        ],
        "lock_after": profile.lock_after,
        "lock_choices": [each for each in LOCK_MINUTES if each * 60 < max_idle],
        "max_idle_minutes": max_idle // 60,
        "backup_count": services.backups.retained_count,
        "latest_backup": state.latest_backup,
        "openings": profile.openings,
        "endpoint": profile.endpoint if endpoint is None else endpoint,
        **_choices(),
        **await _model_context(user),
    }


def _choices() -> dict[str, Any]:
    return {
        "languages": [
            (code, language.name) for code, language in i18n.available_languages().items()
        ],
        "hours": [
            ("24", i18n.time_of_day_words(SAMPLE_TIME)),
            ("12", i18n.time_of_day_words(SAMPLE_TIME, twelve_hours=True)),
        ],
        "day_ends": [
            (hour, i18n.time_of_day_words(SAMPLE_TIME.replace(hour=hour, minute=0)))
            for hour in DAY_ENDS
        ],
        "week_starts": [(day, i18n.weekday_names()[day][0]) for day in WEEK_STARTS],
        "zones": zone_names(),
    }


async def _model_context(user: UserContext) -> dict[str, Any]:
    model, profile = get_services().model, user.profile
    demonstration = _("demonstration (tiny; it invents)")
    return {
        "model": await model_view(
            model, name=profile.endpoint, with_name=True, is_disabled=not profile.replies
        ),
        "endpoints": [
            (each, demonstration if model.is_built_in(each) else each)
            for each in model.endpoint_names
        ],
        "default_endpoint": _("the server of the settings")
        if model.is_available
        else _("no model"),
    }


def _first(listed: list[SessionInfo], session_id: bytes) -> list[SessionInfo]:
    return sorted(listed, key=lambda each: each.id != session_id)


def _session_row(listed: SessionInfo, current_id: bytes, tz: ZoneInfo) -> dict[str, object]:
    minutes = int((utc_now() - listed.last_used_at).total_seconds()) // 60
    if minutes < 2:
        used = _("just now")
    elif minutes < 60:
        used = ngettext("%(num)s minute ago", "%(num)s minutes ago", minutes) % {"num": minutes}
    else:
        used = _("on %(when)s") % {"when": _format_when(listed.last_used_at, tz)}
    browser, _separator, system = listed.device.partition(" on ")
    device = (
        _("%(browser)s on %(system)s") % {"browser": browser, "system": system}
        if system
        else browser
    )
    return {
        "id": listed.id.hex(),
        "is_current": listed.id == current_id,
        "device": device or _("A browser"),
        "since": _format_when(listed.started_at, tz),
        "used": used,
    }


def _format_when(instant: datetime, tz: ZoneInfo) -> str:
    day = i18n.day_words(day_of(instant, tz))
    return _("%(day)s at %(time)s") % {"day": day, "time": i18n.time_words(instant, tz)}
