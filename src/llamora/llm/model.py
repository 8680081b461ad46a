"""Which model answers: the endpoint the operator named, the built-in one, or none."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from logging import getLogger

from llamora.llm.client import Message, ModelClient, ModelError, ModelInfo
from llamora.llm.embedded import EmbeddedServer
from llamora.settings import LlmSettings, UpstreamSettings

logger = getLogger(__name__)

GONE = "The model server you chose is no longer in the settings: choose another one on the page about you."
TEST_TOKENS = 256  # some models think before they say a word


@dataclass(slots=True, frozen=True)
class SharedServer:
    """The built-in server of the parent process, for its workers: where it listens now, and the key to it."""

    address: Callable[[], str]
    api_key: str


class Model:
    """The model of this process, or the reason why there is none, and further ones that a writer may choose.

    Methods that take a `name` mean the endpoint of that name in the settings, "" the default. One that the operator
    took out answers nothing: who chose a server at home is not handed over to another one unasked.
    """

    def __init__(self, settings: LlmSettings, shared: SharedServer | None = None) -> None:
        self._settings = settings
        self._server: EmbeddedServer | None = None
        self._client: ModelClient | None = None
        self._starting: asyncio.Task[None] | None = None
        self._others: dict[str, ModelClient] = {}
        self.embedded = False
        self._sentence = ""
        if settings.enabled:
            self._others = {name: _connected(up, settings) for name, up in settings.endpoints.items() if up.host}
        if not settings.enabled:
            self._sentence = "The model is switched off in the settings."
        elif settings.upstream.host:
            up = settings.upstream
            self._client = _connected(up, settings)
        elif not settings.embedded:
            self._sentence = "No model is connected: set llm.upstream.host to a model server to ask for replies."
        elif shared is not None:
            self.embedded = True
            self._client = ModelClient(shared.address, shared.api_key, settings, embedded=True)
        else:
            self.embedded = True
            self._sentence = EmbeddedServer.available()
            if not self._sentence:
                self._server = EmbeddedServer(settings)
                self._client = self._server.client()

    @property
    def sentence(self) -> str:
        """Why no reply can be asked for, or an empty text."""
        gave_up = self._server is not None and self._server.state == "failed"
        return self._sentence or (self._server.sentence if self._server is not None and gave_up else "")

    @property
    def available(self) -> bool:
        """Whether a reply can be asked for."""
        return not self.sentence

    @property
    def names(self) -> list[str]:
        """The endpoints that a writer may choose beside the default."""
        return list(self._others)

    def why_not(self, name: str = "") -> str:
        """Why no reply can be asked of an endpoint, or an empty text."""
        if name in self._others:
            return ""
        return self.sentence or (GONE if name else "")

    def small(self, name: str = "") -> bool:
        """Whether the small built-in model answers there."""
        return self.embedded and name not in self._others

    def place(self, name: str = "") -> str:
        """The address of an endpoint as it is set; "" for the built-in model."""
        chosen = self._settings.endpoints.get(name) if name in self._others else None
        return (chosen or self._settings.upstream).host

    def start(self) -> None:
        """Bring the built-in model up in the background; writing never waits for it."""
        if self._client is not None:
            self._starting = asyncio.create_task(self._start(), name="model start")

    async def client(self, name: str = "") -> ModelClient:
        """The client, once the model is up. Raises ModelError with a sentence."""
        if name in self._others:
            return self._others[name]
        if name:
            raise ModelError("unreachable", self.why_not(name))
        if self._starting is not None:
            await asyncio.shield(self._starting)
        if self._client is None or self.sentence:
            raise ModelError("unreachable", self.sentence or "No model is connected.")
        return self._client

    async def info(self, name: str = "") -> ModelInfo | None:
        """Name and place of the model, or None while nothing answers."""
        if name in self._others:
            try:
                return await self._others[name].describe()
            except ModelError:
                return None
        if name or self._client is None or self.sentence:
            return None
        if self.embedded and self._starting is not None and not self._starting.done():
            return None  # one that is connected is asked all the same: it does not start with us
        try:
            return await self._client.describe()
        except ModelError:
            return None

    async def test(self, name: str = "") -> float:
        """Ask for one word, and return the seconds until it came. Raises ModelError with a sentence."""
        client = await self.client(name)
        began = time.monotonic()
        pieces = client.stream([Message("user", "Answer with the one word: ready")], max_tokens=TEST_TOKENS)
        async with aclosing(pieces):
            async for _ in pieces:
                return time.monotonic() - began
        raise ModelError("broken", "The model answered, but said nothing.")

    async def stop(self) -> None:
        """Close the connections and end the child."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        for client in (self._client, *self._others.values()):
            if client is not None:
                await client.close()
        if self._server is not None:
            await self._server.stop()

    async def _start(self) -> None:
        if self._client is None:
            return
        try:
            await self._client.warm_up()
            if self._server is not None:
                await self._server.start()
        except ModelError as error:
            logger.warning("the built-in model did not start")
            self._sentence = error.sentence


def _connected(up: UpstreamSettings, settings: LlmSettings) -> ModelClient:
    own = replace(
        settings,
        temperature=settings.temperature if up.temperature < 0 else up.temperature,
        context_tokens=up.context_tokens or settings.context_tokens,
    )
    return ModelClient(
        up.host,
        up.api_key,
        own,
        model=up.model,
        reasoning_effort=up.reasoning_effort,
        opens_thought=up.opens_thought,
    )
