"""Months as templates show them."""

from calendar import Calendar, monthrange
from datetime import date, timedelta
from typing import Any

from llamora.app.i18n import weekday_names
from llamora.app.services.container import get_services
from llamora.journal.context import UserContext


def days_of_month(month: date) -> list[date]:
    """Return all days of the month of `month`."""
    count = monthrange(month.year, month.month)[1]
    return [month.replace(day=number) for number in range(1, count + 1)]


def adjacent_months(month: date) -> dict[str, Any]:
    """Return a day of the previous month and one of the next; None beyond the calendar."""
    days = days_of_month(month)
    return {
        "previous_month": days[0] - timedelta(1) if days[0] > date.min else None,
        "next_month": days[-1] + timedelta(1) if days[-1] < date.max else None,
    }


def weeks_of_month(month: date, week_start: int) -> list[list[date | None]]:
    """Return the weeks of a month, with None for days of others."""
    weeks = Calendar(week_start).monthdayscalendar(month.year, month.month)
    return [[month.replace(day=number) if number else None for number in week] for week in weeks]


async def month_context(user: UserContext, month: date) -> dict[str, Any]:
    """Return what the calendar shows of the month of a day."""
    first, week_start = month.replace(day=1), user.profile.week_start
    written = await get_services().journal.find_written_days(user.keys, days_of_month(first))
    return {
        "month": first,
        "weeks": weeks_of_month(first, week_start),
        "weekdays": weekday_names(week_start),
        "days_with_entries": written,
        "now": user.today,
        **adjacent_months(first),
    }
