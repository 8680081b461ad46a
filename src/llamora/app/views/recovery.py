"""The page that shows a recovery code and asks for one of its groups."""

from typing import Any

from llamora.app.i18n import gettext as _
from llamora.app.i18n import gettext_noop
from llamora.app.services.container import get_services
from llamora.journal.session_keys import OpenSession
from llamora.vault.recovery_code import recovery_groups

ORDINALS = gettext_noop("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


def recovery_code_context(session: OpenSession, code: str) -> dict[str, Any]:
    """Return what shows a new code, for this one time, and asks for one of its groups back."""
    question = get_services().access.ask_for_group(session, code)
    return {
        "code": recovery_groups(code),
        "error": "",
        **question_context(question.index, question.token),
    }


def question_context(index: int, token: str) -> dict[str, Any]:
    """Return what asks for the group at `index`."""
    return {"ordinal": _(ORDINALS[index]), "index": token}
