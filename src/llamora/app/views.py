"""View models for templates: entries, summaries and the model."""

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
from llamora.app.markdown import has_tasks, render_reply, render_with_tags, split_into_parts
from llamora.app.rendering import EntryCache, get_renderer
from llamora.app.services.container import get_services
from llamora.journal.citations import cited, redact_erased
from llamora.journal.entries import Thread
from llamora.journal.quotations import marks
from llamora.journal.reading import model_may_read
from llamora.journal.summaries import TagSummary
from llamora.journal.tags import Tag, TagsOfEntry
from llamora.llm.addresses import is_loopback
from llamora.llm.model import Model
from llamora.persistence.connection import NotFound
from llamora.persistence.drafts import Draft, answer_draft_key, edit_draft_key
from llamora.persistence.entries import BUILT_IN_MODEL, Entry, Omitted, Receipt, State
from llamora.persistence.summaries import StoredSummary
from llamora.text import Role
from llamora.vault.keys import Keyring


@dataclass(slots=True, frozen=True)
class SourceView:
    """A passage from the prompt of a reply.

    `cited`: the reply refers to it; `from_tag`: a tag brought it into the prompt.
    """

    number: int
    path: str
    day: date
    text: str
    score: float
    cited: bool
    from_tag: bool


@dataclass(slots=True, frozen=True)
class ReceiptView:
    """The details of how a reply was made, in words where they are always shown."""

    model: str
    sources_summary: str
    omitted: str
    model_file: str
    endpoint: str
    left_machine: bool
    prompt_version: str
    tokens_in: int
    tokens_out: int
    tokens_counted: bool
    verified: int
    """Quotations found word for word in the prompt; `not_found` counts the others."""
    not_found: int
    first_token_seconds: float
    """-1 when no token came."""


@dataclass(slots=True)
class EntryView:
    """An entry, a reply or an answer. Ids are hex.

    `root` is the first message of its thread; a root has the others in `thread`.
    """

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
    """The unsaved edit of an entry, or the unsaved answer to a reply."""
    thread: list["EntryView"] = field(default_factory=list["EntryView"])
    sources: list[SourceView] = field(default_factory=list[SourceView])
    receipt: ReceiptView | None = None
    parent_id: str = ""
    withheld: bool = False
    answered_count: int = 1
    """Number of entries that a reply answers."""
    reply_count: int = 0
    """Number of replies to an entry, or to the entry that a reply answers."""
    preferred: bool = False
    is_collapsed: bool = False
    """Another reply to the same entry is preferred."""
    has_checkboxes: bool = False
    """It has checkboxes that can be ticked."""
    part: int = 1
    part_count: int = 1
    """`part` of a long text, counted from 1, of `part_count`."""
    waiting_message: str = ""
    """The reason why a reply has no text yet."""
    tags: tuple[Tag, ...] = ()
    tags_fingerprint: str = ""
    is_askable: bool = False
    """The model may be asked about it."""


@dataclass(slots=True, frozen=True)
class SummaryView:
    """A summary of a day or a tag, or the opening line of a day."""

    html: Markup
    model: str
    omitted: str


@dataclass(slots=True, frozen=True)
class ModelView:
    """The model in words. `leaves_machine`: prompts are sent to another machine."""

    available: bool
    problem: str = ""
    name: str = ""
    description: str = ""
    endpoint: str = ""
    leaves_machine: bool = False
    embedded: bool = False
    is_unreachable: bool = False
    """It did not answer when asked for its name."""
    hidden: bool = False
    """The user has turned the model off: only the page that turns it on mentions it."""


NOTHING_HIDDEN: Mapping[bytes, str] = MappingProxyType({})


async def entry_view(
    keys: Keyring,
    entry: Entry,
    root: bytes,
    hidden: Mapping[bytes, str] = NOTHING_HIDDEN,
    tags: TagsOfEntry | None = None,
    *,
    part: int = 1,
) -> EntryView:
    """Build the view of one message of the thread that begins with `root`.

    Runs on the thread of the renderer. A reply shows no text of `hidden` entries. A very long text
    is cut to `part`, or shown in full for 0. Raises NotFound for a part that does not exist.
    """
    renderer = get_renderer()
    cache = renderer.cache_for(keys)
    return await renderer.run(_entry_view, cache, entry, root, hidden, tags, part)


def _entry_view(
    cache: EntryCache,
    entry: Entry,
    root: bytes,
    hidden: Mapping[bytes, str],
    tags: TagsOfEntry | None,
    part: int,
) -> EntryView:
    original_receipt = entry.receipt
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
        model=model_name(entry.model),
        note=i18n.describe(entry.note),
        parent_id=entry.parent_id.hex() if entry.parent_id else "",
        withheld=entry.withheld,
        answered_count=1 + len(entry.also_answers),
        preferred=entry.preferred,
    )
    if entry.role == "reply":
        _fill_reply(cache, view, entry, original_receipt)
    else:
        tags = tags or TagsOfEntry()
        view.tags, view.tags_fingerprint = tags.tags, tags_fingerprint(tags.tags)
        paths = {key: tag_path(tag_id) for key, tag_id in tags.ids_by_key.items()}
        key = (entry.id, entry.text, entry.state, part, *paths.items())
        view.html, view.part_count, view.has_checkboxes = cache.get(
            key,
            lambda: _render_own(entry, paths, part),
            lambda rendered: len(rendered[0]) + len(entry.text),
        )
        view.part = part or 1
    return view


def _render_own(entry: Entry, paths: Mapping[str, str], part: int) -> tuple[Markup, int, bool]:
    """Return a part of a user's text as HTML, the number of parts, and True for checkboxes."""
    parts = split_into_parts(entry.text) if part else [entry.text]
    if part > len(parts):
        raise NotFound("entry_part_not_found")
    # A form must hold all boxes of a text: those it lacks would lose their ticks.
    has_checkboxes = len(parts) == 1 and entry.state != "unreadable" and has_tasks(entry.text)
    html = render_with_tags(parts[max(part, 1) - 1], paths, interactive=has_checkboxes)
    return html, len(parts), has_checkboxes


async def part_view(keys: Keyring, entry_id: bytes, part: int) -> EntryView:
    """Return the view of one part of a long entry. Raises NotFound."""
    journal = get_services().journal
    entry = await journal.get(keys, entry_id)
    tags_by_entry = await journal.tags.entry_tags(keys, {entry.id: entry.text})
    return await entry_view(keys, entry, entry.id, tags=tags_by_entry.get(entry.id), part=part)


def tags_fingerprint(tags: Iterable[Tag]) -> str:
    """Return a hash of the ids and names of tags, or "" for none, to notice changes by."""
    joined = "\n".join(f"{tag.hex_id} {tag.name}" for tag in tags)
    return (
        blake2b(joined.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        if joined
        else ""
    )


def tag_path(tag_id: bytes) -> str:
    """Return the path of a tag's page."""
    return f"/traces/{tag_id.hex()}"


def summary_view(summary: StoredSummary) -> SummaryView:
    """Return the view of a summary or an opening line of a day."""
    html = render_reply(summary.text, {}, marks(summary.text, summary.quoted))
    return SummaryView(html, model_name(summary.model), _describe_cut(summary))


def tag_summary_view(summary: TagSummary) -> SummaryView:
    """Return the view of a summary of a tag, with links to the entries it cites."""
    summary_record = summary.summary
    paths = {
        number: f"/d/{entry.day}#e-{entry.id.hex()}"
        for number, entry in enumerate(summary.entries, 1)
    }
    html = render_reply(
        summary_record.text, paths, marks(summary_record.text, summary_record.quoted)
    )
    return SummaryView(html, model_name(summary_record.model), _describe_cut(summary_record))


def model_name(name: str) -> str:
    """Return the name to show for the model of a record."""
    return _("small built-in model") if name == BUILT_IN_MODEL else name


def describe_omitted(omitted: Omitted) -> str:
    """Describe what was left out of a prompt for lack of room; return "" for nothing."""
    notes, passages, turns = omitted.notes, omitted.passages, omitted.turns
    counted = (
        (notes, ngettext("%(num)s note of the day", "%(num)s notes of the day", notes)),
        (passages, ngettext("%(num)s earlier passage", "%(num)s earlier passages", passages)),
        (
            turns,
            ngettext(
                "%(num)s turn of the conversation", "%(num)s turns of the conversation", turns
            ),
        ),
    )
    parts = [words % {"num": count} for count, words in counted if count]
    if omitted.shortened:
        parts.append(_("the middle of the entry"))
    return (
        _("Left out for lack of room: %(what)s.") % {"what": i18n.join_list(parts)} if parts else ""
    )


def _describe_cut(summary: StoredSummary) -> str:
    limit = _("The model said more than fits here.") if summary.length_limited else ""
    return " ".join(filter(None, (describe_omitted(summary.omitted), limit)))


def _fill_reply(
    cache: EntryCache, view: EntryView, entry: Entry, original_receipt: Receipt | None
) -> None:
    passages = entry.receipt.passages if entry.receipt else ()
    paths = {p.number: f"/d/{p.day}#e-{p.entry_id.hex()}" for p in passages}
    cited_numbers = set(cited(entry.text))
    view.sources = [
        SourceView(
            p.number, paths[p.number], p.day, p.text, p.score, p.number in cited_numbers, p.from_tag
        )
        for p in passages
    ]
    growing = entry.state == "streaming"
    marked = marks(entry.text, entry.receipt.quoted if entry.receipt else (), growing=growing)
    key = (entry.id, entry.text, tuple(marked), *paths.items(), i18n.current_language().code)
    view.html = (
        render_reply(entry.text, paths, marked)
        if growing
        else cache.get(
            key,
            lambda: render_reply(entry.text, paths, marked),
            lambda html: len(html) + len(entry.text),
        )
    )
    if growing:
        view.waiting_message = i18n.describe(get_services().replies.waiting_message(entry.id))
    elif entry.receipt is not None:
        verified = sum(true for _, _, true in marked)
        view.receipt = _receipt_view(
            entry.receipt, original_receipt != entry.receipt, verified, len(marked) - verified
        )


def _receipt_view(
    receipt: Receipt, has_hidden_sources: bool, verified: int, not_found: int
) -> ReceiptView:
    days = len({p.day for p in receipt.passages})
    if not days:
        sources_summary = _("drew on this page alone")
    else:
        sources_summary = ngettext(
            "drew on %(num)s earlier day", "drew on %(num)s earlier days", days
        ) % {"num": days}
    if receipt.erased_count:
        sources_summary = _("%(sources)s and on what was erased since") % {
            "sources": sources_summary if days else _("drew on this page")
        }
    elif has_hidden_sources:
        sources_summary = _("%(sources)s and on what is shown no more") % {
            "sources": sources_summary if days else _("drew on this page")
        }
    return ReceiptView(
        model=model_name(receipt.model),
        sources_summary=sources_summary,
        omitted=describe_omitted(receipt.omitted),
        model_file=receipt.model_file,
        endpoint=receipt.endpoint,
        left_machine=receipt.left_machine,
        prompt_version=receipt.prompt_version,
        tokens_in=receipt.tokens_in,
        tokens_out=receipt.tokens_out,
        tokens_counted=receipt.tokens_counted,
        verified=verified,
        not_found=not_found,
        first_token_seconds=receipt.first_token_ms / 1000 if receipt.first_token_ms >= 0 else -1,
    )


async def page_views(
    keys: Keyring, threads: list[Thread], *, with_replies: bool, full_text: bool = False
) -> list[EntryView]:
    """Return the views of the threads of a page, with replies as they stand at this moment.

    Replies show no text of sources that were deleted or withheld since, and are left out without
    `with_replies`. `full_text` shows very long texts in full.
    """
    services = get_services()
    part = 0 if full_text else 1
    hidden = await services.journal.find_hidden_sources(
        keys, [entry for thread in threads for entry in thread.descendants]
    )
    user_entries = [
        e for thread in threads for e in (thread.root, *thread.descendants) if e.role == "me"
    ]
    tags_by_entry = await services.journal.tags.entry_tags(
        keys, {entry.id: entry.text for entry in user_entries}
    )
    views: list[EntryView] = []
    for thread in threads:
        view = await entry_view(
            keys, thread.root, thread.root.id, tags=tags_by_entry.get(thread.root.id), part=part
        )
        view.is_askable = thread.root.role == "me" and model_may_read(thread.root, thread.root)
        for entry in thread.descendants:
            if with_replies or entry.role == "me":
                current_entry = await services.replies.reconcile(keys, entry)
                view.thread.append(
                    await entry_view(
                        keys,
                        current_entry,
                        thread.root.id,
                        hidden,
                        tags_by_entry.get(entry.id),
                        part=part,
                    )
                )
        _count_replies(view)
        views.append(view)
    views_by_draft_key = {_draft_key(view): view for root in views for view in (root, *root.thread)}
    for draft_key, draft in (await services.journal.get_drafts(keys, views_by_draft_key)).items():
        views_by_draft_key[draft_key].draft = draft
    return views


def _count_replies(root: EntryView) -> None:
    replies: dict[str, list[EntryView]] = {}
    for view in root.thread:
        if view.role == "reply":
            replies.setdefault(view.parent_id, []).append(view)
    for view in (root, *root.thread):
        sibling_replies = replies.get(view.parent_id if view.role == "reply" else view.id, [])
        view.reply_count = len(sibling_replies)
        is_finished_reply = view.role == "reply" and view.state != "streaming"
        view.is_collapsed = (
            is_finished_reply
            and not view.preferred
            and any(other.preferred for other in sibling_replies)
        )


def _draft_key(view: EntryView) -> str:
    return (answer_draft_key if view.role == "reply" else edit_draft_key)(bytes.fromhex(view.id))


async def message_view(keys: Keyring, entry_id: bytes) -> EntryView:
    """Return one message as its page shows it, with its thread if it is a root.

    Raises NotFound.
    """
    services = get_services()
    thread = await services.journal.get_thread(keys, entry_id)
    with_replies = (await services.accounts.get_profile(keys)).replies
    live_thread = Thread(
        thread.root, tuple(entry for entry in thread.descendants if entry.deleted is None)
    )
    (view,) = await page_views(keys, [live_thread], with_replies=with_replies)
    for item in (view, *view.thread):
        if item.id == entry_id.hex():
            return item
    raise NotFound("entry_deleted")


async def model_view(
    model: Model, *, name: str = "", with_name: bool = False, is_disabled: bool = False
) -> ModelView:
    """Return the view of the model of the endpoint `name`.

    `with_name` asks the server for the name of its model, which may take a moment. `is_disabled`:
    the user has turned the model off.
    """
    if is_disabled:
        return ModelView(available=False, hidden=True)
    if why_not := model.unavailable_reason(name):
        return ModelView(available=False, problem=i18n.describe(why_not))
    built_in = model.is_built_in(name)
    description = _("the small built-in model") if built_in else _("the model you connected")
    if not with_name:
        return ModelView(available=True, description=description)
    info = await model.info(name)
    if info is None:
        if built_in:  # it starts with the first prompt
            return ModelView(available=True, description=description, embedded=True)
        address = model.host_of(name)
        host = urlsplit(address if "//" in address else f"//{address}").hostname or address
        unreachable_description = _("%(model)s; %(host)s does not answer just now") % {
            "model": description,
            "host": host,
        }
        is_remote = not is_loopback(address if "//" in address else f"//{address}")
        return ModelView(
            available=True,
            description=unreachable_description,
            leaves_machine=is_remote,
            is_unreachable=True,
        )
    shown_name = description if info.is_embedded else info.name
    return ModelView(
        available=True,
        name=info.name,
        description=shown_name,
        endpoint="" if info.is_embedded else info.endpoint,
        leaves_machine=not info.is_local,
        embedded=info.is_embedded,
    )


# User-agent patterns in the order to try: most browsers also claim to be others
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
    """Return a name for a browser such as "Firefox on Linux", or "" for an unknown one."""
    browser, system = (
        next((name for pattern, name in known if re.search(pattern, user_agent[:500])), "")
        for known in (_BROWSERS, _SYSTEMS)
    )
    return f"{browser} on {system}" if browser and system else browser or system
