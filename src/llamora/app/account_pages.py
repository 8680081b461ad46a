"""The account page and the settings on it."""

from typing import Literal

from quart import Response

from llamora.app.i18n import describe
from llamora.app.i18n import gettext as _
from llamora.app.pages import (
    change_profile,
    current_user,
    is_fragment,
    redirect_303,
    render_template,
)
from llamora.app.views.account import account_context
from llamora.errors import Problem

AccountSection = Literal[
    "", "page", "zone", "writing", "model", "replies", "openings",
    "passphrase", "recovery", "lock", "key", "backup", "end",
]  # fmt: skip


async def account_page(
    about: AccountSection = "",
    problem: Problem | str = "",
    *,
    done: str = "",
    endpoint: str | None = None,
) -> Response:
    """Show the account page.

    `problem` is shown beside the form `about`, and `done` names an action to confirm. `endpoint`
    preselects a model server that is not saved.
    """
    status = problem.status if isinstance(problem, Problem) else 422 if problem else 200
    response = await render_template(
        "pages/account.html",
        status,
        about=about,
        error=describe(problem) if isinstance(problem, Problem) else problem,
        done=done,
        **await account_context(await current_user(), endpoint=endpoint),
    )
    if isinstance(problem, Problem):
        response.headers.update(problem.retry_after)
    return response


async def save_setting(about: AccountSection, to: str = "/you", **changes: object) -> Response:
    """Save settings, and answer with a short note for HTMX, else with a redirect to `to`."""
    try:
        if changes:
            await change_profile(**changes)
    except Problem as error:
        return await account_page(about, error)
    if not is_fragment():
        return redirect_303(to)
    if "language" in changes:
        return Response(headers={"HX-Redirect": "/you?done=language"})
    return Response(f"<span>{_('Kept.')}</span>", mimetype="text/html")
