"""The views of entries and replies."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType

from markupsafe import Markup
from msgspec.structs import replace

from llamora.app import i18n
from llamora.app.addresses import entry_path, tag_path
from llamora.app.markdown import has_tasks, render, render_reply, render_with_tags, split_into_parts
from llamora.app.rendering import EntryCache, get_renderer
from llamora.app.services.container import get_services
from llamora.app.views.model import model_name
from llamora.app.views.receipts import ReceiptView, SourceView, receipt_view
from llamora.journal.citations import cited, redact_erased
from llamora.journal.context import UserContext
from llamora.journal.quotations import marks
from llamora.journal.reading import model_may_read
from llamora.journal.tag_cache import Tag
from llamora.journal.tags import TagsOfEntry
from llamora.journal.threads import Thread
from llamora.persistence.connection import NotFound
from llamora.persistence.drafts import Draft, answer_draft_key, edit_draft_key
from llamora.persistence.entries import Entry, Receipt
from llamora.vault.keys import Keyring


@dataclass(slots=True)
class EntryView:
    """An entry, a reply or an answer, with what templates show beside its own fields.

    Templates read the fields of `entry` as the view's own. `id`, `parent_id` and `root`, the first
    message of its thread, are hex; a root has the others in `thread`.
    """

    entry: Entry
    root: str
    model: str
    note: str
    html: Markup = field(default_factory=Markup)
    draft: Draft | None = None
    """The unsaved edit of an entry, or the unsaved answer to a reply."""
    thread: list["EntryView"] = field(default_factory=list["EntryView"])
    sources: list[SourceView] = field(default_factory=list[SourceView])
    receipt: ReceiptView | None = None
    reply_count: int = 0
    """Number of replies to an entry, or to the entry that a reply answers."""
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

    def __getattr__(self, name: str) -> object:
        return getattr(self.entry, name)

    @property
    def id(self) -> str:
        return self.entry.id.hex()

    @property
    def parent_id(self) -> str:
        return (self.entry.parent_id or b"").hex()

    @property
    def path(self) -> str:
        return entry_path(self.entry, self.entry.id)


EXCERPT_CHARACTERS = 420  # of a deleted entry: about six lines
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
    view = EntryView(entry, root.hex(), model_name(entry.model), i18n.describe(entry.note))
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
    parts = split_into_parts(entry.text) if part else [entry.text]
    if part > len(parts):
        raise NotFound("entry_part_not_found")
    # A form must hold all boxes of a text: those it lacks would lose their ticks.
    has_checkboxes = len(parts) == 1 and entry.state != "unreadable" and has_tasks(entry.text)
    html = render_with_tags(parts[max(part, 1) - 1], paths, interactive=has_checkboxes)
    return html, len(parts), has_checkboxes


async def part_view(user: UserContext, entry_id: bytes, part: int) -> EntryView:
    """Return the view of one part of a long entry. Raises NotFound."""
    entry = await get_services().journal.get(user.keys, entry_id)
    return await own_entry_view(user, entry, part=part)


async def own_entry_view(user: UserContext, entry: Entry, *, part: int = 1) -> EntryView:
    """Return the view of an entry without its thread. Raises NotFound."""
    texts = {entry.id: entry.text}
    tags = (await get_services().journal.tags.entry_tags(user.keys, texts)).get(entry.id)
    return await entry_view(user.keys, entry, entry.id, tags=tags, part=part)


async def version_views(user: UserContext, entry_id: bytes) -> list[dict[str, object]]:
    """Return the earlier versions of an entry, newest first. Raises NotFound."""
    services = get_services()
    return [
        {
            "id": version.id.hex(),
            "at": version.at,
            "html": await get_renderer().run(render, version.text),
        }
        for version in await services.versions.list_for_entry(user.keys, entry_id)
    ]


def tags_fingerprint(tags: Iterable[Tag]) -> str:
    """Return a hash of the ids and names of tags, or "" for none, to notice changes by."""
    joined = "\n".join(f"{tag.hex_id} {tag.name}" for tag in tags)
    return (
        blake2b(joined.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        if joined
        else ""
    )


def _fill_reply(
    cache: EntryCache, view: EntryView, entry: Entry, original_receipt: Receipt | None
) -> None:
    passages = entry.receipt.passages if entry.receipt else ()
    paths = {p.number: entry_path(p, p.entry_id) for p in passages}
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
        view.receipt = receipt_view(
            entry.receipt, original_receipt != entry.receipt, verified, len(marked) - verified
        )


async def page_views(
    user: UserContext,
    threads: Iterable[Thread],
    *,
    full_text: bool = False,
) -> list[EntryView]:
    """Return the views of the threads of a page, with replies as they stand at this moment.

    Replies show no text of sources that were deleted or withheld since, and are left out if the
    user has turned them off. `full_text` shows very long texts in full.
    """
    services, keys, threads = get_services(), user.keys, list(threads)
    part = 0 if full_text else 1
    hidden = await services.journal.find_hidden_sources(
        keys, [entry for thread in threads for entry in thread.descendants]
    )
    texts = {e.id: e.text for thread in threads for e in thread.messages if e.role == "me"}
    tags_by_entry = await services.journal.tags.entry_tags(keys, texts)
    current = {
        entry.id: await services.replies.reconcile(keys, entry)
        for thread in threads
        for entry in thread.descendants
        if user.profile.replies or entry.role == "me"
    }
    renderer = get_renderer()
    cache = renderer.cache_for(keys)

    def build_views() -> Iterator[EntryView]:
        for root, descendants in ((thread.root, thread.descendants) for thread in threads):
            tags = tags_by_entry.get(root.id)
            view = _entry_view(cache, root, root.id, NOTHING_HIDDEN, tags, part)
            view.is_askable = root.role == "me" and model_may_read(root, root)
            view.thread = [
                _entry_view(cache, current[e.id], root.id, hidden, tags_by_entry.get(e.id), part)
                for e in descendants
                if e.id in current
            ]
            _count_replies(view)
            yield view

    views = await renderer.run_in_slices(build_views())
    views_by_draft_key = {
        _draft_key(view.entry): view for root in views for view in (root, *root.thread)
    }
    for draft_key, draft in (await services.drafts.get_many(keys, views_by_draft_key)).items():
        views_by_draft_key[draft_key].draft = draft
    return views


def _count_replies(root: EntryView) -> None:
    replies: dict[str, list[EntryView]] = {}
    for view in root.thread:
        if view.entry.role == "reply":
            replies.setdefault(view.parent_id, []).append(view)
    for view in (root, *root.thread):
        is_reply = view.entry.role == "reply"
        siblings = replies.get(view.parent_id if is_reply else view.id, [])
        view.reply_count = len(siblings)
        view.is_collapsed = (
            is_reply
            and view.entry.state != "streaming"
            and not view.entry.preferred
            and any(other.entry.preferred for other in siblings)
        )


def _draft_key(entry: Entry) -> str:
    return (answer_draft_key if entry.role == "reply" else edit_draft_key)(entry.id)


async def message_view(user: UserContext, entry_id: bytes) -> EntryView:
    """Return one message as its page shows it, with its thread if it is a root.

    Raises NotFound, also for a deleted one.
    """
    thread = await get_services().journal.get_thread(user.keys, entry_id)
    live = [entry for entry in thread.messages if entry.deleted is None]
    if all(entry.id != entry_id for entry in live):
        raise NotFound("entry_deleted")
    live_thread = Thread(thread.root, tuple(entry for entry in live if entry.id != thread.root.id))
    (view,) = await page_views(user, [live_thread])
    for item in (view, *view.thread):
        if item.entry.id == entry_id:
            return item
    raise NotFound("entry_not_found")  # a reply, for a user who turned these off


async def excerpt_view(keys: Keyring, entry: Entry) -> EntryView:
    """Return the view of the beginning of a deleted entry.

    A reply shows no text that its page would hide.
    """
    hidden = await get_services().journal.find_hidden_sources(keys, [entry])
    entry = redact_erased(entry, hidden, filter(None, hidden.values())) or entry
    text = entry.text
    if len(text) > EXCERPT_CHARACTERS:
        text = text[:EXCERPT_CHARACTERS].rsplit(None, 1)[0] + " …"
    return await entry_view(
        keys, replace(entry, text=text), entry.id if entry.parent_id is None else b""
    )
