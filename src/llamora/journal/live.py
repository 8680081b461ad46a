"""A reply while it is being written in this process: what came of it so far, and what it waits for."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace

from llamora.errors import Notice
from llamora.journal.entries import Thread
from llamora.journal.quotations import QuoteVerifier
from llamora.llm.prompts import Prompt
from llamora.llm.reasoning import REASONING_END
from llamora.persistence.entries import Entry

READING = Notice("waiting_reading")
THINKING = Notice("waiting_thinking")


class LiveReply:
    """A reply being written in this process. `entry` is its last stored state."""

    def __init__(self, entry: Entry, endpoint: str = "") -> None:
        self.entry = entry
        self.endpoint = endpoint
        self.queue_position = -1  # how many come before it; -1 once it has its turn
        self.has_begun = False
        self.is_finishing = False
        self.is_finished = False
        self.stored: asyncio.Future[bool] = (
            asyncio.get_running_loop().create_future()
        )  # whether it has its record
        # Its record is being stored, and no worker has one like it: the model may be asked.
        self.is_unique = asyncio.Event()
        self.stop_reason: Notice | None = None
        self.is_reasoning = False
        self.is_length_limited = False  # whether it ends where no longer one was asked for
        self.first_word_at = -1.0  # when the first word came, on the monotonic clock
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.texts_used: dict[
            bytes, str
        ] = {}  # the texts in its prompt, of its page and of passages
        self.revisions: Mapping[
            bytes, int
        ] = {}  # the revisions of these at which the model might read them
        self.cached_page: list[Thread] | None = (
            None  # as it was a moment ago, when it was asked for, unless it had to wait
        )
        self.text = ""
        """All that came so far."""
        self._verifier = QuoteVerifier(())

    def set_prompt(self, prompt: Prompt, quoted: Iterable[str] = ()) -> None:
        """Take note of what may be quoted: the passages, the user's words, and what earlier replies `quoted`."""
        self._verifier = QuoteVerifier(
            [*(p.text for p in prompt.passages), *prompt.user_texts, *quoted]
        )

    def feed(self, chunk: str) -> None:
        """Take the model's next words."""
        if reasoning_ends := list(REASONING_END.finditer(chunk)):
            self.text = ""
            self.has_begun = False
            chunk = chunk[reasoning_ends[-1].end() :]
        chunk = chunk if self.has_begun else chunk.lstrip()
        self.has_begun = self.has_begun or bool(chunk)
        self.text += chunk.replace("\r", "")  # Markdown makes a new line of it

    def on_reasoning(self) -> None:
        """The model thinks before it says a word."""
        if not self.is_reasoning:
            self.is_reasoning = True
            self.notify()

    def on_length_limit(self) -> None:
        """The model said as much as it was asked for, and would have said more."""
        self.is_length_limited = True

    def quoted(self) -> tuple[str, ...]:
        """Return the quotations so far that stand in the prompt letter by letter."""
        return self._verifier.verified(self.text)

    def notify(self) -> None:
        """Wake everybody who follows."""
        self.changed.set()
        self.changed = asyncio.Event()

    def on_position(self, position: int) -> None:
        """Somebody in the queue before this reply came or went."""
        if position >= 0:
            self.cached_page = None
        if position != self.queue_position:
            self.queue_position = position
            self.notify()

    def snapshot(self) -> Entry:
        """The reply as it stands this moment."""
        if self.is_finished:
            return self.entry
        receipt = self.entry.receipt
        receipt = replace(receipt, quoted=self.quoted()) if receipt is not None else None
        return replace(self.entry, text=self.text, receipt=receipt)

    @property
    def waiting_message(self) -> Notice | None:
        """What it waits for while no word of it is there."""
        if self.text:
            return None
        if self.queue_position < 0:
            return THINKING if self.is_reasoning else READING
        if not self.queue_position:
            return Notice("waiting_next")
        if self.queue_position == 1:
            return Notice("waiting_one")
        return Notice("waiting_several", {"number": self.queue_position})
