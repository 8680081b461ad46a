"""Choose the model that answers: a named endpoint, the built-in one a user chose, or none."""

import asyncio
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from llamora.events import ChannelClosed, EventBus, Service
from llamora.llm.client import Message, ModelClient
from llamora.llm.embedded import START_SECONDS, EmbeddedServer
from llamora.llm.errors import ModelError
from llamora.llm.probe import ModelInfo
from llamora.llm.prompts import PromptBuilder
from llamora.llm.queue import ModelQueue, SlotQueue
from llamora.settings import LlmSettings, UpstreamSettings

BUILT_IN = "built-in"
"""The name by which a user chooses the built-in model; it never answers anybody who did not."""
TEST_TOKENS = 256  # some models reason first


@dataclass(slots=True, frozen=True)
class SharedServer:
    """Hold the built-in server of the parent process, for its workers.

    `api_key` is that of the server; the bus of this process knows its port.
    """

    events: EventBus
    api_key: str

    def address(self) -> str:
        """Return the address, "" while the server does not answer."""
        port = self.events.model_port
        return f"http://127.0.0.1:{port}/v1" if port else ""


class Model:
    """Hold the models of this process.

    A `name` is that of an endpoint in the settings, BUILT_IN, or "" for the default. An endpoint
    that was removed from the settings answers nothing: a user who chose a server at home is not
    handed over to another one. `prompts` are built from the templates in `prompts_folder`, and
    `queue` gives out the slots. Raises PromptTemplateError.
    """

    def __init__(
        self,
        settings: LlmSettings,
        shared_server: SharedServer | None = None,
        queue: SlotQueue | None = None,
        prompts_folder: Path | None = None,
    ) -> None:
        self.prompts = PromptBuilder(settings, prompts_folder)
        self.queue: SlotQueue = queue or ModelQueue(settings.slots)
        self.max_reply_tokens = settings.max_reply_tokens
        self._settings = settings
        self._shared = shared_server
        self._server: EmbeddedServer | None = None
        self._client: ModelClient | None = None
        self._warming: asyncio.Task[None] | None = None
        self._start_task: asyncio.Task[None] | None = None
        self._endpoint_clients: dict[str, ModelClient] = {}
        self._has_built_in = False
        self._problem = ""  # the code of why the default answers nothing
        if not settings.enabled:
            self._problem = "model_off"
            return
        self._endpoint_clients = {
            name: _create_client(upstream, settings)
            for name, upstream in settings.endpoints.items()
            if upstream.host
        }
        if settings.upstream.host:
            self._client = _create_client(settings.upstream, settings)
        else:
            self._problem = "model_missing"
        if settings.embedded and BUILT_IN not in self._endpoint_clients:
            self._add_built_in()

    def _add_built_in(self) -> None:
        if self._shared is not None:
            address, key = self._shared.address, self._shared.api_key
            self._endpoint_clients[BUILT_IN] = ModelClient(
                address, key, self._settings, embedded=True
            )
        elif not EmbeddedServer.unavailable_reason():
            self._server = EmbeddedServer(self._settings)
            self._endpoint_clients[BUILT_IN] = self._server.client()
        self._has_built_in = BUILT_IN in self._endpoint_clients

    @property
    def is_available(self) -> bool:
        return not self._problem

    @property
    def endpoint_names(self) -> list[str]:
        """Return the names of the endpoints that a user may choose beside the default."""
        return list(self._endpoint_clients)

    def unavailable_reason(self, name: str = "") -> str:
        """Return the code of why no reply can be asked of an endpoint, "" when one can."""
        if self.is_built_in(name) and self._server is not None and self._server.state == "failed":
            return self._server.problem
        if name in self._endpoint_clients:
            return ""
        return self._problem or ("endpoint_removed" if name else "")

    def require(self, name: str = "") -> None:
        """Raise ModelError if no reply can be asked of an endpoint."""
        if why_not := self.unavailable_reason(name):
            raise ModelError(why_not)

    def is_built_in(self, name: str) -> bool:
        return name == BUILT_IN and self._has_built_in

    def host_of(self, name: str = "") -> str:
        """Return the address of an endpoint as it is set, "" for the built-in model."""
        if self.is_built_in(name):
            return ""
        endpoint = self._settings.endpoints.get(name) if name in self._endpoint_clients else None
        return (endpoint or self._settings.upstream).host

    def start(self) -> None:
        """Import in the background what the first request needs; writing never waits for it."""
        if self._client is not None:
            self._warming = asyncio.create_task(self._client.warm_up(), name="model warm-up")

    async def client(self, name: str = "") -> ModelClient:
        """Return the client of an endpoint, once its model is up. Raises ModelError."""
        self.require(name)
        if self.is_built_in(name):
            await self._start_built_in()
        client = self._endpoint_clients.get(name, self._client)
        if client is None:
            raise ModelError("model_missing")
        return client

    async def info(self, name: str = "") -> ModelInfo | None:
        """Return what an endpoint says about its model, None while nothing answers."""
        client = (
            None
            if self.unavailable_reason(name)
            else self._endpoint_clients.get(name, self._client)
        )
        if client is None:
            return None
        try:
            return await client.probe()
        except ModelError:
            return None

    async def test(self, name: str = "") -> float:
        """Ask for one word; return the seconds until it came. Raises ModelError."""
        client = await self.client(name)
        started = time.monotonic()
        pieces = client.stream(
            [Message("user", "Answer with the one word: ready")], max_tokens=TEST_TOKENS
        )
        async with aclosing(pieces):
            async for _ in pieces:
                return time.monotonic() - started
        raise ModelError("model_said_nothing", "broken")

    async def stop(self) -> None:
        """Close all connections and end the built-in model."""
        tasks = [task for task in (self._warming, self._start_task) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in (self._client, *self._endpoint_clients.values()):
            if client is not None:
                await client.close()
        if self._server is not None:
            await self._server.stop()

    async def _start_built_in(self) -> None:
        if self._server is not None:
            if self._start_task is None:
                self._start_task = asyncio.create_task(self._server.start(), name="model start")
            await asyncio.shield(self._start_task)
        elif self._shared is not None:
            with suppress(TimeoutError, ChannelClosed):  # the client says what happened
                async with asyncio.timeout(START_SECONDS):
                    await self._shared.events.call(Service.MODEL_SERVER)


def _create_client(upstream: UpstreamSettings, settings: LlmSettings) -> ModelClient:
    endpoint_settings = replace(
        settings,
        temperature=settings.temperature if upstream.temperature < 0 else upstream.temperature,
        context_tokens=upstream.context_tokens or settings.context_tokens,
    )
    return ModelClient(
        upstream.host,
        upstream.api_key,
        endpoint_settings,
        model=upstream.model,
        reasoning_effort=upstream.reasoning_effort,
        opens_reasoning=upstream.opens_thought,
    )
