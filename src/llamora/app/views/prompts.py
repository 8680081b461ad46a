"""The exact prompt that would be sent to the model."""

import json
from typing import Any

from llamora.app.i18n import gettext as _
from llamora.app.views.receipts import describe_omitted
from llamora.journal.composing import ComposedPrompt
from llamora.journal.summaries import PreparedPrompt
from llamora.persistence.entries import BUILT_IN_MODEL


def prompt_context(prepared: ComposedPrompt | PreparedPrompt) -> dict[str, Any]:
    """Return what the page of a prompt shows."""
    parameters = prepared.client.request_parameters(prepared.max_tokens)
    receipt = prepared.receipt
    return {
        "messages": prepared.prompt.messages,
        "options": json.dumps(parameters, ensure_ascii=False, indent=1),
        "receipt": receipt,
        "reader": _("the small built-in model")
        if receipt.model == BUILT_IN_MODEL
        else receipt.model,
        "omitted": describe_omitted(receipt.omitted),
    }
