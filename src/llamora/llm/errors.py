"""Turn every failure of a model server into one ModelError with one sentence."""

import logging
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Literal, cast

from llamora.llm.addresses import display_address

logger = logging.getLogger(__name__)

ErrorKind = Literal["unreachable", "refused", "busy", "broken", "too_long"]


class ModelError(Exception):
    """Report that the model server failed.

    `sentence` says to the user what happened and what to do; nothing that was written, asked or
    answered is ever part of it.
    """

    def __init__(self, kind: ErrorKind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind: ErrorKind = kind
        self.sentence = sentence


class ServerErrors:
    """Make the ModelErrors of one server. `get_address` returns its URL."""

    def __init__(self, get_address: Callable[[], str], *, embedded: bool) -> None:
        self._get_address = get_address
        self._embedded = embedded

    def _display_address(self) -> str:
        return display_address(self._get_address())

    def _error(self, kind: ErrorKind, happened: str, remedy: str, address: str = "") -> ModelError:
        if self._embedded:
            remedy = "ask again in a moment" if "llm." in remedy or kind != "too_long" else remedy
            return ModelError(kind, f"{happened.format(place='The built-in model')}: {remedy}.")
        subject = f"The model server at {address or self._display_address()}"
        return ModelError(kind, f"{happened.format(place=subject)}: {remedy}.")

    def length_error(self) -> ModelError:
        """Return the error of a reply that is longer than it may be."""
        return self._error("too_long", "{place} would not stop at the length asked for", "what came so far is kept")

    def no_event_stream(self) -> ModelError:
        """Return the error of an answer that is no event stream."""
        return self._error("broken", "{place} did not answer as a model server does", "check llm.upstream.host")

    def unfinished(self) -> ModelError:
        """Return the error of a reply that ended before its end was announced."""
        return self._error("broken", "{place} stopped in the middle of the reply", "ask again")

    def status_error(self, status: int, code: str, address: str) -> ModelError:
        """Return the error for an HTTP status, and the machine-readable `code` of its body."""
        if status == 401:
            return self._error("refused", "{place} wants another key", "check llm.upstream.api_key", address)
        if status == 403:
            return self._error(
                "refused",
                "{place} forbids this key the model",
                "check llm.upstream.api_key",
                address,
            )
        if status == 404:
            return self._error(
                "refused",
                "{place} does not know this model",
                "check llm.upstream.model and host",
                address,
            )
        if status == 429:
            return self._error("busy", "{place} has too much to do", "ask again in a minute", address)
        if status == 503:
            return self._error("busy", "{place} is not ready", "ask again in a minute", address)
        if "context" in code:
            return self._error(
                "too_long",
                "{place} finds the text too long",
                "lower llm.context_tokens to what it offers",
                address,
            )
        if "unsupported" in code and re.search("temperature|reasoning_effort", code):  # a model of OpenAI's that thinks
            return self._error(
                "refused",
                "{place} does not take this temperature or reasoning effort for its model",
                "set temperature to 1, or another reasoning_effort, in the settings",
                address,
            )
        if 300 <= status < 400:
            return self._error(
                "refused",
                "{place} points to another address",
                "put the final one in llm.upstream.host",
                address,
            )
        if 400 <= status < 500:
            return self._error(
                "refused",
                f"{{place}} did not accept the request (HTTP {status})",
                "check llm.upstream.host and model",
                address,
            )
        return self._error("broken", f"{{place}} failed (HTTP {status})", "look at its own log", address)

    def error_from(self, error: Exception, address: str) -> ModelError:
        """Return the error for any exception, of which nothing is kept: it may quote the prompt."""
        import httpx2
        import openai

        from llamora.llm.wire import ResponseTooLarge, UnexpectedEncoding

        if isinstance(error, openai.APIStatusError):
            return self.status_error(error.status_code, _error_code(error.body), address)
        chain = list(_error_chain(error))
        if any(isinstance(e, ResponseTooLarge) for e in chain):
            return self._error(
                "broken",
                "{place} sent more than any reply needs",
                "check llm.upstream.host",
                address,
            )
        if any(isinstance(e, UnexpectedEncoding) for e in chain):
            return self._error("broken", "{place} sent a compressed reply", "switch compression off there", address)
        if any(isinstance(e, ssl.SSLError) for e in chain) or any("SSL" in type(e).__name__ for e in chain):
            return self._error(
                "unreachable",
                "{place} has no certificate this machine trusts",
                "check its certificate",
                address,
            )
        if any(isinstance(e, socket.gaierror) for e in chain):
            return self._error("unreachable", "{place} cannot be found by name", "check llm.upstream.host", address)
        if any(isinstance(e, httpx2.ConnectTimeout) for e in chain):
            return self._error("unreachable", "{place} cannot be reached", "check that it runs", address)
        if any(isinstance(e, httpx2.ConnectError) for e in chain):
            return self._error("unreachable", "{place} refuses connections", "check that it runs", address)
        if any(isinstance(e, httpx2.TimeoutException | TimeoutError | openai.APITimeoutError) for e in chain):
            return self._error(
                "broken",
                "{place} stopped answering",
                "ask again, or raise llm.timeout_seconds",
                address,
            )
        if any(isinstance(e, httpx2.TransportError) for e in chain):
            return self._error("broken", "{place} broke off the connection", "ask again", address)
        if isinstance(error, openai.APIError):
            return self._error("broken", "{place} reported an error", "look at its own log", address)
        if not isinstance(error, ValueError):  # undecodable text and JSON are ValueErrors
            logger.warning("unexpected failure of the model client: %s", type(error).__name__)
        return self._error("broken", "{place} sent something unreadable", "ask again", address)


def _error_chain(error: BaseException | None) -> Iterator[BaseException]:
    seen_ids: set[int] = set()
    while error is not None and id(error) not in seen_ids:
        seen_ids.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _error_code(body: object) -> str:
    # The machine-readable words of an error: "exceed_context_size_error", "temperature" and such.
    if not isinstance(body, dict):
        return ""
    fields = cast(dict[str, object], body)
    return " ".join(str(fields[key]) for key in ("code", "type", "param") if isinstance(fields.get(key), str))
