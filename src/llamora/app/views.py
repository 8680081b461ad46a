"""What templates are given: entries and the model as a page shows them."""

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from hashlib import blake2b
from types import MappingProxyType
from urllib.parse import urlsplit

from markupsafe import Markup

from llamora.app import i18n
from llamora.app.i18n import gettext as _
from llamora.app.i18n import ngettext
from llamora.app.markdown import has_tasks, parts_of, render_reply, render_traced
from llamora.app.services.container import get_services
from llamora.journal.citations import cited, redact_erased
from llamora.journal.entries import Thread
from llamora.journal.quotations import marks
from llamora.journal.summaries import TagSummary
from llamora.journal.tags import Tag, TagsOfEntry
from llamora.llm.client import is_loopback
from llamora.llm.model import Model
from llamora.persistence.connection import NotFound
from llamora.persistence.drafts import Draft, answer_draft_key, edit_draft_key
from llamora.persistence.entries import Entry, Receipt, Role, State
from llamora.persistence.summaries import StoredSummary
from llamora.vault.keys import Keyring


@dataclass(slots=True, frozen=True)
class SourceView:
    """A passage that was in the prompt of a reply; `cited`: the reply refers to it, `traced`: a trace brought it."""

    number: int
    path: str
    day: date
    text: str
    score: float
    cited: bool
    traced: bool


@dataclass(slots=True, frozen=True)
class ReceiptView:
    """What a reply was made with, in words where it is shown without being asked for."""

    model: str
    drew_on: str
    cut: str
    file: str
    endpoint: str
    left: bool
    prompt: str
    tokens_in: int
    tokens_out: int
    counted: bool
    verified: int
    """Quotations that are marked as standing in the prompt letter by letter, and how many as not standing there."""
    not_found: int
    first_seconds: float
    """-1 when no word came."""


@dataclass(slots=True)
class EntryView:
    """An entry, a reply or an answer. Ids are hex; `root` is the first of its thread, `thread` all that follow it."""

    id: str
    root: str
    day: date
    role: Role
    text: str
    html: Markup
    at: datetime
    zone: str
    revision: int
    state: State
    edited: datetime | None
    model: str
    note: str
    draft: Draft | None = None
    """The edit of an entry, or the answer to a reply, that was begun and not kept."""
    thread: list["EntryView"] = field(default_factory=list["EntryView"])
    sources: list[SourceView] = field(default_factory=list[SourceView])
    receipt: ReceiptView | None = None
    to: str = ""
    withheld: bool = False
    answers: int = 1
    """How many entries a reply answers."""
    replies: int = 0
    """How many replies an entry has, or the entry that a reply answers."""
    preferred: bool = False
    aside: bool = False
    """Another reply to the same entry is preferred."""
    tasks: bool = False
    """There are boxes to tick in it."""
    part: int = 1
    parts: int = 1
    """Which part of a long text this is, and of how many."""
    waiting: str = ""
    """What a reply without a word yet waits for."""
    traces: tuple[Tag, ...] = ()
    traces_mark: str = ""

    @property
    def askable(self) -> bool:
        """Whether the model may be asked about it."""
        return self.role == "me" and not self.withheld and self.state != "unreadable"


@dataclass(slots=True, frozen=True)
class DigestView:
    """What a model said of a day or a trace."""

    html: Markup
    model: str
    cut: str


@dataclass(slots=True, frozen=True)
class ModelView:
    """The model in words. `leaves_machine`: what is asked leaves this machine."""

    available: bool
    sentence: str = ""
    name: str = ""
    words: str = ""
    endpoint: str = ""
    leaves_machine: bool = False
    embedded: bool = False
    silent: bool = False
    """It was asked for its name just now and gave no answer."""
    hidden: bool = False
    """The writer has turned the model off: no page mentions it but the one where it is turned on."""


NOTHING_HIDDEN: Mapping[bytes, str] = MappingProxyType({})
LONG_TEXT = 2_000  # characters; the worst text of that length takes some 30 ms


async def entry_view(
    entry: Entry,
    root: bytes,
    hidden: Mapping[bytes, str] = NOTHING_HIDDEN,
    borne: TagsOfEntry | None = None,
    *,
    part: int = 1,
) -> EntryView:
    """One message of the thread that begins with `root`; a reply shows nothing of the `hidden` entries and texts.

    A long text is rendered on a thread: nobody else waits for it. Of a very long one only a `part` is, or with 0 all of
    it. Raises NotFound for a part that it does not have.
    """
    if len(entry.text) > LONG_TEXT:
        return await asyncio.to_thread(_entry_view, entry, root, hidden, borne, part)
    return _entry_view(entry, root, hidden, borne, part)


def _entry_view(
    entry: Entry, root: bytes, hidden: Mapping[bytes, str], borne: TagsOfEntry | None, part: int
) -> EntryView:
    whole = entry.receipt
    if entry.role == "reply":
        entry = redact_erased(entry, hidden, filter(None, hidden.values())) or entry
    view = EntryView(
        id=entry.id.hex(),
        root=root.hex(),
        day=entry.day,
        role=entry.role,
        text=entry.text,
        html=Markup(),
        at=entry.at,
        zone=entry.zone,
        revision=entry.revision,
        state=entry.state,
        edited=entry.edited,
        model=entry.model,
        note=entry.note,
        to=entry.parent_id.hex() if entry.parent_id else "",
        withheld=entry.withheld,
        answers=1 + len(entry.also_answers),
        preferred=entry.preferred,
    )
    if entry.role == "reply":
        _fill_reply(view, entry, whole)
    else:
        borne = borne or TagsOfEntry()
        view.traces, view.traces_mark = borne.tags, traces_mark(borne.tags)
        parts = parts_of(entry.text) if part else [entry.text]
        view.part, view.parts = part or 1, len(parts)
        if view.part > view.parts:
            raise NotFound("There is no such part of this entry.")
        # A form holds all boxes of a text or none: those it lacks would lose their ticks.
        view.tasks = view.parts == 1 and view.state != "unreadable" and has_tasks(entry.text)
        paths = {key: trace_path(trace) for key, trace in borne.ids_by_key.items()}
        view.html = render_traced(parts[view.part - 1], paths, ticking=view.tasks)
    return view


async def part_view(keys: Keyring, entry_id: bytes, part: int) -> EntryView:
    """A later part of a long entry. Raises NotFound."""
    journal = get_services().journal
    entry = await journal.get(keys, entry_id)
    borne = await journal.tags.entry_tags(keys, {entry.id: entry.text})
    return await entry_view(entry, entry.id, borne=borne.get(entry.id), part=part)


def traces_mark(traces: Iterable[Tag]) -> str:
    """What the traces of an entry come to: another word once one came, went or is called otherwise, "" for none."""
    said = "\n".join(f"{trace.hex_id} {trace.name}" for trace in traces)
    return blake2b(said.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest() if said else ""


def trace_path(trace: bytes) -> str:
    """The address of a trace's page."""
    return f"/traces/{trace.hex()}"


def digest_view(digest: StoredSummary) -> DigestView:
    """The line that opens a day, or the summary of one."""
    html = render_reply(digest.text, {}, marks(digest.text, digest.quoted))
    return DigestView(html, digest.model, cut_words(digest.omitted))


def summary_view(summary: TagSummary) -> DigestView:
    """The summary of a trace, with links to the entries it cites."""
    digest = summary.summary
    paths = {number: f"/d/{entry.day}#e-{entry.id.hex()}" for number, entry in enumerate(summary.entries, 1)}
    html = render_reply(digest.text, paths, marks(digest.text, digest.quoted))
    return DigestView(html, digest.model, cut_words(digest.omitted))


LEFT_OUT = re.compile(r"Left out for lack of room: ([^.]+)\.")


def cut_words(sentence: str) -> str:
    """What was left out of a prompt, as `llm.prompts` says it and a reply keeps it, in the language of the request."""
    told = LEFT_OUT.match(sentence)
    if i18n.current().code == "en":
        return sentence
    if told is None:
        return i18n.said(sentence)
    rest = i18n.said(sentence[told.end() :].strip())
    parts = [_left_out(*part.partition(" ")) for part in re.split(", | and ", told[1])]
    return " ".join(filter(None, (_("Left out for lack of room: %(what)s.") % {"what": i18n.listed(parts)}, rest)))


def _left_out(number: str, _space: str, what: str) -> str:
    if not number.isdecimal():
        return _("the middle of the entry")
    count = int(number)
    if what.startswith("note"):
        words = ngettext("%(num)s note of the day", "%(num)s notes of the day", count)
    elif what.startswith("turn"):
        words = ngettext("%(num)s turn of the conversation", "%(num)s turns of the conversation", count)
    else:
        words = ngettext("%(num)s earlier passage", "%(num)s earlier passages", count)
    return words % {"num": count}


def _fill_reply(view: EntryView, entry: Entry, whole: Receipt | None) -> None:
    used = entry.receipt.passages if entry.receipt else ()
    paths = {p.number: f"/d/{p.day}#e-{p.entry_id.hex()}" for p in used}
    referred = set(cited(entry.text))
    view.sources = [
        SourceView(p.number, paths[p.number], p.day, p.text, p.score, p.number in referred, p.from_tag) for p in used
    ]
    growing = entry.state == "streaming"
    marked = marks(entry.text, entry.receipt.quoted if entry.receipt else (), growing=growing)
    view.html = render_reply(entry.text, paths, marked)
    if growing:
        view.waiting = get_services().replies.waiting_message(entry.id)
    elif entry.receipt is not None:
        verified = sum(true for _, _, true in marked)
        view.receipt = _receipt_view(entry.receipt, whole != entry.receipt, verified, len(marked) - verified)


def _receipt_view(receipt: Receipt, hidden: bool, verified: int, not_found: int) -> ReceiptView:
    days = len({p.day for p in receipt.passages})
    if not days:
        drew_on = _("drew on this page alone")
    else:
        drew_on = ngettext("drew on %(num)s earlier day", "drew on %(num)s earlier days", days) % {"num": days}
    if receipt.erased_count:
        drew_on = _("%(sources)s and on what was erased since") % {
            "sources": drew_on if days else _("drew on this page")
        }
    elif hidden:
        drew_on = _("%(sources)s and on what is shown no more") % {
            "sources": drew_on if days else _("drew on this page")
        }
    return ReceiptView(
        model=receipt.model,
        drew_on=drew_on,
        cut=cut_words(receipt.omitted),
        file=receipt.model_file,
        endpoint=receipt.endpoint,
        left=receipt.left_machine,
        prompt=receipt.prompt_version,
        tokens_in=receipt.tokens_in,
        tokens_out=receipt.tokens_out,
        counted=receipt.tokens_counted,
        verified=verified,
        not_found=not_found,
        first_seconds=receipt.first_token_ms / 1000 if receipt.first_token_ms >= 0 else -1,
    )


async def page_views(
    keys: Keyring, threads: list[Thread], *, with_replies: bool, whole: bool = False
) -> list[EntryView]:
    """The threads of a page, replies as they stand this moment, without what is no source any more.

    `with_replies`: the writer has not turned the model off. `whole`: very long texts, too, are there to their ends.
    """
    services = get_services()
    part = 0 if whole else 1
    hidden = await services.journal.find_hidden_sources(
        keys, [entry for thread in threads for entry in thread.descendants]
    )
    written = [e for thread in threads for e in (thread.root, *thread.descendants) if e.role == "me"]
    borne = await services.journal.tags.entry_tags(keys, {entry.id: entry.text for entry in written})
    views: list[EntryView] = []
    for thread in threads:
        view = await entry_view(thread.root, thread.root.id, borne=borne.get(thread.root.id), part=part)
        for entry in thread.descendants:
            if with_replies or entry.role == "me":
                settled = await services.replies.reconcile(keys, entry)
                view.thread.append(await entry_view(settled, thread.root.id, hidden, borne.get(entry.id), part=part))
        _count_replies(view)
        views.append(view)
    shown = {_draft_place(view): view for root in views for view in (root, *root.thread)}
    for place, draft in (await services.journal.get_drafts(keys, shown)).items():
        shown[place].draft = draft
    return views


def _count_replies(root: EntryView) -> None:
    replies: dict[str, list[EntryView]] = {}
    for view in root.thread:
        if view.role == "reply":
            replies.setdefault(view.to, []).append(view)
    for view in (root, *root.thread):
        others = replies.get(view.to if view.role == "reply" else view.id, [])
        view.replies = len(others)
        ended = view.role == "reply" and view.state != "streaming"
        view.aside = ended and not view.preferred and any(other.preferred for other in others)


def _draft_place(view: EntryView) -> str:
    return (answer_draft_key if view.role == "reply" else edit_draft_key)(bytes.fromhex(view.id))


async def message_view(keys: Keyring, entry_id: bytes) -> EntryView:
    """One message as its page shows it, with its thread when it begins one. Raises NotFound."""
    services = get_services()
    thread = await services.journal.get_thread(keys, entry_id)
    with_replies = (await services.accounts.get_profile(keys)).replies
    kept = Thread(thread.root, tuple(entry for entry in thread.descendants if entry.deleted is None))
    (view,) = await page_views(keys, [kept], with_replies=with_replies)
    for item in (view, *view.thread):
        if item.id == entry_id.hex():
            return item
    raise NotFound("This entry was deleted.")


async def model_view(model: Model, *, name: str = "", full: bool = False, hidden: bool = False) -> ModelView:
    """The model of an endpoint; `full` asks it for its name, which may take a moment.

    `hidden`: the writer has turned it off.
    """
    if hidden:
        return ModelView(available=False, hidden=True)
    if why_not := model.unavailable_reason(name):
        return ModelView(available=False, sentence=why_not)
    built_in = model.is_built_in(name)
    words = _("the small built-in model") if built_in else _("the model you connected")
    if not full:
        return ModelView(available=True, words=words)
    info = await model.info(name)
    if info is None:
        if built_in:  # it starts when it is first asked
            return ModelView(available=True, words=words, embedded=True)
        place = model.host_of(name)
        host = urlsplit(place if "//" in place else f"//{place}").hostname or place
        now = _("%(model)s; %(host)s does not answer just now") % {"model": words, "host": host}
        away = not is_loopback(place if "//" in place else f"//{place}")
        return ModelView(available=True, words=now, leaves_machine=away, silent=True)
    shown = words if info.is_embedded else info.name
    return ModelView(
        available=True,
        name=info.name,
        words=shown,
        endpoint="" if info.is_embedded else info.endpoint,
        leaves_machine=not info.is_local,
        embedded=info.is_embedded,
    )


# What browsers call themselves, in the order in which to ask: most of them also claim to be others
# (https://www.rfc-editor.org/rfc/rfc9110#name-user-agent sets no order).
_BROWSERS = (
    (r"Firefox/|FxiOS/", "Firefox"),
    (r"Edg(?:e|A|iOS)?/", "Edge"),
    (r"OPR/|Opera", "Opera"),
    (r"SamsungBrowser/", "Samsung Internet"),
    (r"Chrome/|CriOS/|Chromium/", "Chrome"),
    (r"Safari/", "Safari"),
)
_SYSTEMS = (
    (r"Android", "Android"),
    (r"iPhone|iPod", "iPhone"),
    (r"iPad", "iPad"),
    (r"CrOS", "ChromeOS"),
    (r"Windows", "Windows"),
    (r"Macintosh|Mac OS X", "Mac"),
    (r"Linux|X11", "Linux"),
)


def device_name(user_agent: str) -> str:
    """What a browser is called in words, such as "Firefox on Linux"; "" for one that is not known."""
    browser, system = (
        next((name for pattern, name in known if re.search(pattern, user_agent[:500])), "")
        for known in (_BROWSERS, _SYSTEMS)
    )
    return f"{browser} on {system}" if browser and system else browser or system
