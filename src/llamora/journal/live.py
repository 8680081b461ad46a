"""A reply while it is being written in this process: what came of it so far, and what it waits for."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace

from llamora.journal.entries import Thread
from llamora.journal.quotations import QuoteVerifier
from llamora.llm.prompts import Prompt
from llamora.llm.reasoning import REASONING_END
from llamora.persistence.entries import Entry

READING = "Reading your page…"
THINKING = "The model is thinking…"


class LiveReply:
    """A reply being written in this process. `entry` is its last stored state."""

    def __init__(self, entry: Entry, endpoint: str = "") -> None:
        self.entry = entry
        self.endpoint = endpoint
        self.ahead = -1  # how many come before it; -1 once it has its turn
        self.begun = False
        self.finishing = False
        self.finished = False
        self.placed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()  # whether it has its record
        # Its record is being stored, and no worker has one like it: the model may be asked.
        self.alone = asyncio.Event()
        self.stopped_because = ""
        self.thinking = False
        self.at_length = False  # whether it ends where no longer one was asked for
        self.first = -1.0  # when the first word came, on the monotonic clock
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.read: dict[bytes, str] = {}  # the texts in its prompt, of its page and of passages
        self.seen: Mapping[bytes, int] = {}  # the revisions of these at which the model might read them
        self.page: list[Thread] | None = None  # as it was a moment ago, when it was asked for, unless it had to wait
        self.text = ""
        """All that came so far."""
        self._verifier = QuoteVerifier(())

    def begin(self, prompt: Prompt, quoted: Iterable[str] = ()) -> None:
        """Take note of what may be quoted: the passages, the user's words, and what earlier replies `quoted`."""
        self._verifier = QuoteVerifier([*(p.text for p in prompt.passages), *prompt.user_texts, *quoted])

    def feed(self, piece: str) -> None:
        """Take the model's next words."""
        if thought := list(REASONING_END.finditer(piece)):
            self.text = ""
            self.begun = False
            piece = piece[thought[-1].end() :]
        piece = piece if self.begun else piece.lstrip()
        self.begun = self.begun or bool(piece)
        self.text += piece.replace("\r", "")  # Markdown makes a new line of it

    def thinks(self) -> None:
        """The model thinks before it says a word."""
        if not self.thinking:
            self.thinking = True
            self.tell()

    def reached_length(self) -> None:
        """The model said as much as it was asked for, and would have said more."""
        self.at_length = True

    def quoted(self) -> tuple[str, ...]:
        """Return the quotations so far that stand in the prompt letter by letter."""
        return self._verifier.verified(self.text)

    def tell(self) -> None:
        """Wake everybody who follows."""
        self.changed.set()
        self.changed = asyncio.Event()

    def moved(self, ahead: int) -> None:
        """Somebody in the queue before this reply came or went."""
        if ahead >= 0:
            self.page = None
        if ahead != self.ahead:
            self.ahead = ahead
            self.tell()

    def now(self) -> Entry:
        """The reply as it stands this moment."""
        if self.finished:
            return self.entry
        receipt = self.entry.receipt
        receipt = replace(receipt, quoted=self.quoted()) if receipt is not None else None
        return replace(self.entry, text=self.text, receipt=receipt)

    @property
    def waiting(self) -> str:
        """What it waits for, in words, while no word of it is there."""
        if self.text:
            return ""
        if self.ahead < 0:
            return THINKING if self.thinking else READING
        if not self.ahead:
            return "Waiting for the model, which is answering somebody…"
        if self.ahead == 1:
            return "Waiting for the model, which is busy; one more comes first…"
        return f"Waiting for the model, which is busy; {self.ahead} more come first…"
