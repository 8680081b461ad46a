"""Turn every failure of a model server into one ModelError with one code."""

import logging
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, cast

from llamora.errors import Problem
from llamora.llm.addresses import display_endpoint
from llamora.llm.dialect import error_status, error_words

logger = logging.getLogger(__name__)

ErrorKind = Literal["unreachable", "refused", "busy", "broken", "too_long"]


class ModelError(Problem):
    """Report that the model server failed; nothing written, asked or answered is part of it."""

    status = 503

    def __init__(self, code: str, /, kind: ErrorKind = "unreachable", **params: str | int) -> None:
        super().__init__(code, **params)
        self.kind: ErrorKind = kind


# What a server can do wrong, and its code where the server is our own, which nobody can set.
_SERVER_ERRORS: Final[Mapping[str, tuple[ErrorKind, str]]] = {
    "server_wants_key": ("refused", "builtin_failed"),
    "server_forbids_key": ("refused", "builtin_failed"),
    "server_lacks_model": ("refused", "builtin_failed"),
    "server_lacks_route": ("refused", "builtin_failed"),
    "server_wants_payment": ("refused", "builtin_failed"),
    "server_refuses_fields": ("refused", "builtin_failed"),
    "server_refuses_size": ("too_long", "builtin_text_too_long"),
    "server_refuses_parameters": ("refused", "builtin_failed"),
    "server_moved": ("refused", "builtin_failed"),
    "server_rejected": ("refused", "builtin_failed"),
    "server_busy": ("busy", "builtin_not_ready"),
    "server_not_ready": ("busy", "builtin_not_ready"),
    "server_text_too_long": ("too_long", "builtin_text_too_long"),
    "server_endless": ("too_long", "builtin_endless"),
    "server_failed": ("broken", "builtin_failed"),
    "server_reported_error": ("broken", "builtin_failed"),
    "server_sent_too_much": ("broken", "builtin_failed"),
    "server_compressed": ("broken", "builtin_failed"),
    "server_unreadable": ("broken", "builtin_failed"),
    "server_foreign": ("broken", "builtin_failed"),
    "server_stopped": ("broken", "builtin_stopped"),
    "server_silent": ("broken", "builtin_silent"),
    "server_broke_off": ("broken", "builtin_broke_off"),
    "server_untrusted": ("unreachable", "builtin_failed"),
    "server_unknown_name": ("unreachable", "builtin_failed"),
    "server_unreachable": ("unreachable", "builtin_refuses"),
    "server_refuses": ("unreachable", "builtin_refuses"),
}
_CODES_BY_STATUS: Final[Mapping[int, str]] = {
    401: "server_wants_key",
    403: "server_forbids_key",
    402: "server_wants_payment",
    404: "server_lacks_route",
    405: "server_lacks_route",
    413: "server_refuses_size",
    429: "server_busy",
    503: "server_not_ready",
    529: "server_busy",
}


class ServerErrors:
    """Make the ModelErrors of one server. `get_address` returns its URL."""

    def __init__(self, get_address: Callable[[], str], *, embedded: bool) -> None:
        self._get_address = get_address
        self._embedded = embedded

    def code_error(self, code: str, address: str = "", **params: int) -> ModelError:
        """Return the error for a code of a server's failure, or the one it has for our own server."""
        kind, code_if_embedded = _SERVER_ERRORS[code]
        if self._embedded:
            return ModelError(code_if_embedded, kind)
        return ModelError(
            code, kind, place=address or display_endpoint(self._get_address()), **params
        )

    def status_error(self, status: int, code: str, address: str) -> ModelError:
        """Return the error for an HTTP status, and the machine-readable `code` of its body."""
        if "quota" in code or "billing" in code:
            return self.code_error("server_wants_payment", address)
        if status == 404 and "model" in code:
            return self.code_error("server_lacks_model", address)
        if status in _CODES_BY_STATUS:
            return self.code_error(_CODES_BY_STATUS[status], address)
        if "context" in code:
            return self.code_error("server_text_too_long", address)
        # A model of OpenAI's that reasons.
        if "unsupported" in code and re.search("temperature|reasoning_effort", code):
            return self.code_error("server_refuses_parameters", address)
        if status == 422:
            return self.code_error("server_refuses_fields", address)
        if 300 <= status < 400:
            return self.code_error("server_moved", address)
        return self.code_error(
            "server_rejected" if 400 <= status < 500 else "server_failed", address, status=status
        )

    def reported_error(self, error: object) -> ModelError:
        """Return the error for one that came inside a stream, of which nothing else is kept."""
        status, words = error_status(error), error_words(error)
        if status or "context" in words or "quota" in words:
            return self.status_error(status or 400, words, "")
        return self.code_error("server_reported_error")

    def error_from(self, error: Exception, address: str) -> ModelError:
        """Return the error for any exception, of which nothing is kept: it may quote the prompt."""
        import httpx2
        import openai

        from llamora.llm.dialect import ResponseTooLarge
        from llamora.llm.wire import UnexpectedEncoding

        if isinstance(error, openai.APIStatusError):
            words = error_words(error.body)
            # Ollama and LM Studio name the model in their words alone.
            words += " model" if error.status_code == 404 and _names_model(error.body) else ""
            return self.status_error(error.status_code, words, address)
        codes: tuple[tuple[str, type[BaseException] | tuple[type[BaseException], ...]], ...] = (
            ("server_sent_too_much", ResponseTooLarge),
            ("server_compressed", UnexpectedEncoding),
            ("server_untrusted", ssl.SSLError),
            ("server_unknown_name", socket.gaierror),
            ("server_unreachable", httpx2.ConnectTimeout),
            ("server_refuses", httpx2.ConnectError),
            ("server_silent", (httpx2.TimeoutException, TimeoutError, openai.APITimeoutError)),
            ("server_broke_off", httpx2.TransportError),
        )
        chain = list(_error_chain(error))
        if any("SSL" in type(cause).__name__ for cause in chain):
            return self.code_error("server_untrusted", address)
        for code, kinds in codes:
            if any(isinstance(cause, kinds) for cause in chain):
                return self.code_error(code, address)
        if isinstance(error, openai.APIError):
            return self.code_error("server_reported_error", address)
        if not isinstance(error, ValueError):  # undecodable text and JSON are ValueErrors
            logger.warning("unexpected failure of the model client: %s", type(error).__name__)
        return self.code_error("server_unreadable", address)


def _error_chain(error: BaseException | None) -> Iterator[BaseException]:
    seen_ids: set[int] = set()
    while error is not None and id(error) not in seen_ids:
        seen_ids.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _names_model(body: object) -> bool:
    words = str(cast(object, body)) if isinstance(body, dict) else ""
    return re.search(r"\bmodel\b", words) is not None
