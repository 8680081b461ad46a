"""Connect to a model server, and ask it small questions in JSON.

The `openai` package takes most of a second to import, so it is imported in a thread when it is
first needed, or ahead of time by `warm_up`.
"""

import asyncio
import importlib
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from llamora.llm.addresses import ServerAddress, display_endpoint, read_address
from llamora.llm.errors import ModelError, ServerErrors

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

CONNECT_TIMEOUT_SECONDS: Final = 5.0
METADATA_TIMEOUT_SECONDS: Final = 3.0  # for the small questions (/tokenize, /props, /v1/models)
INFO_CACHE_SECONDS: Final = 30.0  # an answer about the server is believed for so long


@dataclass(slots=True, frozen=True)
class Transport:
    """Hold the HTTP client of one address, and the SDK's client over it."""

    address: ServerAddress
    http: "httpx2.AsyncClient"
    api: "AsyncOpenAI"


class ServerConnection:
    """Connect to the server at an address that may change.

    `get_address` is called before each request and returns "" while there is nothing to talk to
    (the embedded server between two lives).
    """

    def __init__(
        self,
        get_address: Callable[[], str],
        api_key: str,
        errors: ServerErrors,
        *,
        timeout_seconds: float,
        ca_file: Path | None = None,
    ) -> None:
        self._get_address = get_address
        self._api_key = api_key
        self._errors = errors
        self._timeout_seconds = timeout_seconds
        self._ca_file = ca_file
        self._connect_lock = asyncio.Lock()
        self._transport: Transport | None = None
        self._closed = False

    @property
    def address(self) -> str:
        """Return the address of now. Raises ModelError when the embedded server has failed."""
        return self._get_address()

    async def warm_up(self) -> None:
        """Import what the first request needs, in a thread. Harmless to call more than once."""
        await asyncio.to_thread(_import_sdk)

    async def close(self) -> None:
        """Close every connection; a reply that is streaming ends with an error."""
        self._closed = True
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.http.aclose()

    async def open(self) -> Transport:
        """Return the clients for the address of now. Raises ModelError."""
        address = read_address(self._get_address())
        if self._closed:
            raise ModelError("model_closed")
        if not address.base:
            raise ModelError("builtin_starting")
        async with self._connect_lock:
            if self._transport is not None and self._transport.address == address:
                return self._transport
            await self.warm_up()
            from openai import AsyncOpenAI

            from llamora.llm.wire import open_http_client

            if self._transport is not None:
                await self._transport.http.aclose()
            try:
                http = open_http_client(
                    connect_seconds=CONNECT_TIMEOUT_SECONDS,
                    read_seconds=self._timeout_seconds,
                    connections=100,
                    ca_file=self._ca_file,
                    query=address.query,
                )
            except OSError:
                raise ModelError("ca_file_unreadable", file=str(self._ca_file)) from None
            api = AsyncOpenAI(
                # Without a key the SDK would look for one in the environment.
                api_key=self._api_key or "none",
                organization="",
                project="",
                webhook_secret="",
                admin_api_key="",
                base_url=address.base,
                default_headers=self._key_header(address),
                max_retries=0,  # a second request would be a second reply
                timeout=http.timeout,
                http_client=http,
            )
            self._transport = Transport(address, http, api)
            return self._transport

    def _key_header(self, address: ServerAddress) -> dict[str, str]:
        return {"api-key": self._api_key} if self._api_key and address.takes_key_header else {}

    async def request_json(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        seconds: float = METADATA_TIMEOUT_SECONDS,
    ) -> dict[str, Any] | None:
        """Return the server's JSON for a small question, None when it has no such route.

        `path` is from the server's root, or without "/" from the base of its OpenAI routes. Raises ModelError.
        """
        failure: ModelError
        address = display_endpoint(self.address, path)
        try:
            transport = await self.open()
            where = transport.address
            async with asyncio.timeout(seconds):
                response = await transport.http.request(
                    method,
                    where.root + path if path.startswith("/") else f"{where.base}/{path}",
                    json=body,
                    headers=self._key_header(where)
                    | ({"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}),
                )
            if response.status_code in (401, 403):
                failure = self._errors.status_error(response.status_code, "", address)
            elif response.status_code != 200:
                return None
            else:
                parsed: object = json.loads(response.content)
                return cast(dict[str, Any], parsed) if isinstance(parsed, dict) else None
        except ValueError:
            return None
        except ModelError as error:
            failure = error
        except Exception as error:  # every failure of a server ends in a code
            failure = self._errors.error_from(error, address)
        raise failure


def _import_sdk() -> None:
    # The SDK uses the older httpx if its import has begun (fastembed begins it, in another thread),
    # and fails every request until that import has ended. Importing it here waits for the end.
    with suppress(ImportError):
        importlib.import_module("httpx")
    importlib.import_module("openai.resources.chat")  # the SDK would import it at the first request

    # Their debug lines hold addresses and headers.
    for name in ("openai", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
