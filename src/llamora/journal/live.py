"""Hold the state of a reply while it is generated in this process."""

import asyncio
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from llamora.errors import Notice
from llamora.journal.quotations import QuoteVerifier
from llamora.journal.threads import Thread
from llamora.llm.client import EarlyEnd
from llamora.llm.prompts import Prompt
from llamora.llm.reasoning import REASONING_CLOSED
from llamora.persistence.entries import Entry
from llamora.vault.keys import Keyring

READING = Notice("waiting_reading")
THINKING = Notice("waiting_thinking")
STOPPED = Notice("reply_stopped")
INTERRUPTED = Notice("reply_interrupted")
SOURCE_ERASED = Notice("reply_source_erased")
SOURCE_DELETED = Notice("reply_source_deleted")
SOURCE_WITHHELD = Notice("reply_source_withheld")


class LiveReply:
    """A reply being generated in this process; `entry` is its last stored state."""

    def __init__(self, entry: Entry, keys: Keyring, page: list[Thread]) -> None:
        self.entry = entry
        self.keys = keys
        self.queue_position = -1  # replies before it in the queue; -1 once it has a slot
        self.has_begun = False
        self.is_finishing = False
        self.is_finished = False
        self.stored: asyncio.Future[bool] = (
            asyncio.get_running_loop().create_future()
        )  # result: True once it has its record
        # Set once its record is known to be the only one like it: the model may be asked.
        self.is_unique = asyncio.Event()
        self.stop_reason: Notice | None = None
        self.is_reasoning = False
        self.early_end: EarlyEnd | None = None
        self.first_word_at = -1.0  # on the monotonic clock; -1 before
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.texts_used: dict[
            bytes, str
        ] = {}  # the entry texts in its prompt, from its page and from passages
        self.revisions: Mapping[
            bytes, int
        ] = {}  # those at which the model was allowed to read these entries
        # The page when it was asked for; None once it had to queue.
        self.cached_page: list[Thread] | None = page
        self.text = ""
        """The text received so far."""
        self._verifier = QuoteVerifier(())

    def set_prompt(self, prompt: Prompt, quoted: Iterable[str] = ()) -> None:
        """Set the texts a reply may quote.

        They are the passages and user texts of `prompt`, and what earlier replies `quoted`.
        """
        self._verifier = QuoteVerifier(
            [*(p.text for p in prompt.passages), *prompt.user_texts, *quoted]
        )

    def cancel(self, reason: Notice) -> None:
        """Stop generating it; cancelling during the final save could only lose it."""
        if self.task is not None and not self.is_finishing and not self.stop_reason:
            self.task.cancel()
        self.stop_reason = reason

    def feed(self, chunk: str) -> None:
        if chunk.startswith(REASONING_CLOSED):
            self.text = ""
            self.has_begun = False
            chunk = chunk.removeprefix(REASONING_CLOSED)
        chunk = chunk if self.has_begun else chunk.lstrip()
        self.has_begun = self.has_begun or bool(chunk)
        self.text += chunk.replace("\r", "")  # Markdown treats it as a line break

    def on_reasoning(self) -> None:
        if not self.is_reasoning:
            self.is_reasoning = True
            self.notify()

    def on_early_end(self, reason: EarlyEnd) -> None:
        self.early_end = reason

    def quoted(self) -> tuple[str, ...]:
        """Return the quotations so far that match the prompt literally."""
        return self._verifier.verified(self.text)

    def notify(self) -> None:
        """Wake everybody who waits for `changed`."""
        self.changed.set()
        self.changed = asyncio.Event()

    def on_position(self, position: int) -> None:
        """Set the number of replies before this one in the queue; -1 once it has a slot."""
        if position >= 0:
            self.cached_page = None
        if position != self.queue_position:
            self.queue_position = position
            self.notify()

    def snapshot(self) -> Entry:
        if self.is_finished:
            return self.entry
        receipt = self.entry.receipt
        receipt = replace(receipt, quoted=self.quoted()) if receipt is not None else None
        return replace(self.entry, text=self.text, receipt=receipt)

    @property
    def waiting_message(self) -> Notice | None:
        """Return the notice to show while there is no text yet, else None."""
        if self.text:
            return None
        if self.queue_position < 0:
            return THINKING if self.is_reasoning else READING
        if not self.queue_position:
            return Notice("waiting_next")
        if self.queue_position == 1:
            return Notice("waiting_one")
        return Notice("waiting_several", {"number": self.queue_position})
