"""Pictures of every page and state, to be looked at: `uv run python -m scripts.pictures --to FOLDER`.

A server of its own with invented journals, a scripted model and a clock that stands still, so that two runs can be
laid over each other. `--only day --width 360 --theme dark` takes some. One line of JSON with the count is printed last.

`--references` writes those anew with which tests/browser/test_looks.py compares: a few pages, each pixel the average of
8 x 8 of the screen, and a picture of letters alone, by which a machine that draws letters in another way is known.
"""

import argparse
import html
import io
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

from scripts.browser import find_or_install
from tests.scripted_model import ModelThread, Reply
from tests.server_process import HttpUser, Server

WIDTHS = {360: 740, 768: 1024, 1280: 860, 1920: 1080}  # px, with the height of such a screen
THEMES = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "contrast": {"color_scheme": "light", "contrast": "more"},
}
NOW = datetime(2026, 3, 14, 18, 40, tzinfo=UTC)
TODAY, YESTERDAY = "2026-03-14", "2026-03-13"
REFERENCES = Path(__file__).parents[1] / "tests/browser/looks"
COMPARED_VIEWS = ("sign-in", "day-empty", "day", "search-found", "you")
SCREEN_SIZES = ((390, 844), (1280, 860))
WITHOUT_EMBEDDING = {
    "LLAMORA_EMBEDDING__ENABLED": "false"
}  # found by words alone, whatever has been embedded by then
BLOCK = 8  # pixels of the screen, each way, in one of a reference
# Both faces on an empty page, without a style sheet of ours, so that it changes with the machine alone.
LETTERS = """async () => {
  const faces = [["A", "literata"], ["B", "instrument-sans"]].map(([name, file]) =>
    new FontFace(name, `url(/static/fonts/vendor/${file}.woff2)`, {weight: "200 900"}));
  for (const face of await Promise.all(faces.map((face) => face.load()))) document.fonts.add(face);
  document.querySelectorAll("link[rel=stylesheet]").forEach((link) => link.remove());
  document.body.replaceChildren(...["38px A", "18px A", "14px B"].map((font) => {
    const line = document.createElement("p");
    line.textContent = "Quick wafting zephyrs vex bold Jim; 0123456789 ÄÖÜ fi “äöü” — …";
    line.style.font = font;
    return line;
  }));
}"""
PASSPHRASE = "a picture is of what was there"  # noqa: S105 - of nobody
# No code is like another, nor is the group that is asked for, nor a free port: something stands in for them.
REPLACE_RANDOM_TEXT = """main => {
  const texts = document.createTreeWalker(main, NodeFilter.SHOW_TEXT)
  for (let text; (text = texts.nextNode()); ) {
    if (text.parentElement.closest('.code-shown')) text.data = text.data.replace(/[A-Z0-9]/g, 'H')
    text.data = text.data.replace(/127\\.0\\.0\\.1:\\d+/, '127.0.0.1:8080')
    text.data = text.data.replace(/the \\w+ group$/, 'the second group')
  }
}"""
# The server's clock is the date of modification of a file. It is put in before anything takes `utc_now` by name.
SERVER_WITH_FIXED_CLOCK = (
    "-c",
    """
import os, sys
from datetime import UTC, datetime
from llamora import dates
dates.utc_now = lambda: datetime.fromtimestamp(os.stat(os.environ["PICTURES_CLOCK"]).st_mtime, UTC)
from llamora.__main__ import main
sys.exit(main())
""",
)

MORNING = (
    "Up before the alarm. Walked along the #river in the dark; the heron was there again, perfectly still, and for "
    "ten minutes I forgot everything I meant to worry about.\n\n"
    "I keep thinking about what #nora said, that I only write when something is *wrong*. So: nothing is wrong. "
    "Coffee, wet shoes, a bird."
)
TASK_LIST = (
    "## Before Easter\n\n- [x] paint the kitchen\n- [x] ring the dentist\n- [ ] post the letter to #nora\n\n"
    "> What is written down need not be carried.\n\nThe recipe said `180 °C`; 160 would have done. More of it "
    "[on the card](https://example.org/card)."
)
QUESTION = "Was there really never a quarter of an hour that was only mine?"
REPLY_CHUNKS = [
    "There was, though you seldom say it in those words. ",
    "In February, with fog on the river, you called it “The only quarter of an hour that was mine this week”.[1] ",
    "You did not mention work at all.",
]
CITED_PASSAGE = "Fog on the #river"  # so its passage begins
PAST_ENTRIES = (
    ("2024-03-14", "The ice has gone from the #river. Sat on the bench until my hands were cold."),
    (
        "2025-03-14",
        "Three herons after the storm. Branches everywhere. Slept nine hours. #river #heron",
    ),
    ("2025-08-09", "Too hot to walk. Read on the stairs, where it is cool, until #nora rang."),
    (
        "2026-02-03",
        "Fog on the #river, no one about. The only quarter of an hour that was mine this week.",
    ),
    (
        "2026-02-17",
        "The letter is still not written. I know what to say and not how to begin. #nora",
    ),
    ("2026-03-02", "First day without a coat. Bought paint for the kitchen, the colour of a pear."),
    (
        "2026-03-09",
        "One wall of the kitchen is done. It is greener than a pear. I like it. #kitchen",
    ),
    (YESTERDAY, "The kitchen is finally painted, the letter unsent. #kitchen #nora"),
)
LONG_ENTRIES = (
    "Rain on the roof of the train. Nobody spoke, and I read the same page three times.",
    "Lunch under the arcade. " * 12,
    "Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz" * 3,
    "| day | miles |\n| --- | --- |\n| Monday | 4 |\n| Tuesday | 11 |\n\n```\nfor step in walk: count += 1\n```",
    "1. milk\n2. bread\n3. stamps\n\nThen home, along the canal.",
)
GERMAN_ENTRIES = (
    "Früh am #fluss, noch im Dunkeln. Der Reiher stand wieder da, und zehn Minuten lang habe ich alles vergessen.",
    "Die Küche ist endlich gestrichen. Grüner als eine Birne; es gefällt mir. #küche",
)


@dataclass
class Scene:
    """The server with its journals, and the names of the entries that pages are about."""

    server: Server
    users: dict[str, HttpUser]
    entry: str
    deleted_entry: str
    tag_hex: str

    def sign_in(self, context: BrowserContext, user_key: str) -> None:
        """Give the context the cookies of one of the writers."""
        cookies = self.users[user_key].http.cookies
        context.add_cookies(
            [
                {"name": name, "value": value, "url": self.server.url}
                for name, value in cookies.items()
            ]
        )


@dataclass(frozen=True)
class View:
    """One page or state: who looks, at which address, and what is done there first."""

    name: str
    path: str | Callable[[Scene], str]
    user_key: str = "typical"
    prepare: Callable[[Page], None] | None = None
    full_page: bool = True
    """The page to its end, instead of one screen of it."""
    media: str = "screen"


def _register(page: Page) -> None:
    page.get_by_label("Name").fill(f"Ada {time.time_ns()}")
    page.locator("input[type=password]").first.fill(PASSPHRASE)
    page.locator("form button.main, form button[type=submit], form button").last.click()
    page.locator("main").evaluate(REPLACE_RANDOM_TEXT)


def _fail_sign_in(page: Page) -> None:
    page.get_by_label("Name").fill("Nobody")
    page.locator("input[type=password]").first.fill("not the passphrase at all")
    page.locator("main form button").last.click()
    expect(page.locator(".problem:not(:empty)").first).to_be_visible()


def _searching(query: str, expected: str) -> Callable[[Page], None]:
    def prepare(page: Page) -> None:
        field = page.locator("main input[type=search]")
        field.fill(query)
        field.press("Enter")
        expect(page.locator(expected).first).to_be_visible()

    return prepare


def _pressing(keys: str, expected: str) -> Callable[[Page], None]:
    def prepare(page: Page) -> None:
        page.locator("h1").first.click()
        page.keyboard.press(keys)
        expect(page.locator(expected).first).to_be_visible()

    return prepare


def _opening(*selectors: str) -> Callable[[Page], None]:
    def prepare(page: Page) -> None:
        for selector in selectors:
            page.locator(selector).first.click()
            expect(page.locator("article.entry .more[open]").first).to_be_visible()

    return prepare


def _write_draft(page: Page) -> None:
    page.locator("#write").fill(
        "A second heron, further down.\n\n- it did not mind me\n- nor the first one"
    )
    expect(page.locator("#composer[data-draft]")).to_be_attached()


def _delete_entry(page: Page) -> None:
    """A line that is deleted at once: what is left of it is the way back."""
    page.locator("#write").fill("Nothing today.")
    page.locator("#composer button.main").click()
    expect(page.locator("article.entry").first).to_be_visible()
    page.locator(MORE).last.click()
    page.locator("article.entry .more[open] button:text-is('Delete')").first.click()
    expect(page.locator("main :text('Undo')").first).to_be_visible()


def _save_stale_edit(page: Page) -> None:
    """Keep an edit of what was changed elsewhere meanwhile."""
    page.locator("input[name=revision]").evaluate(
        "field => { field.value = field.value.replace(/.$/, '0') }"
    )
    page.locator("main textarea").fill("Up before the alarm, and out.")
    page.locator("main form button.main").first.click()
    expect(page.locator("main .problem:not(:empty)").first).to_be_visible()


def _go_to_unknown_date(page: Page) -> None:
    page.locator("#when").fill("the day of the heron")
    page.locator("#when").press("Enter")
    expect(page.locator("#when-problem:not(:empty)")).to_be_visible()


def _clicking(selector: str, expected: str) -> Callable[[Page], None]:
    def prepare(page: Page) -> None:
        page.locator(selector).first.click()
        expect(page.locator(expected).first).to_be_visible()

    return prepare


def _enter_focus_mode(page: Page) -> None:
    page.locator("#write").fill("A second heron, further down.")
    page.locator("#composer .text-button:text-is('Focus')").click()


MORE = "article.entry .text-button:text-is('More')"
VIEWS = (
    View("sign-in", "/sign-in", ""),
    View("sign-in-wrong", "/sign-in", "", _fail_sign_in),
    View("register", "/register", ""),
    View("recovery-code", "/register", "", _register),
    View("reset", "/reset", ""),
    View("day-empty", "/d/today", "empty"),
    View("day", "/d/today", full_page=False),
    View("day-whole", "/d/today"),
    View("day-writing", "/d/today", "writing", _write_draft, full_page=False),
    View(
        "day-trace",
        "/d/today",
        prepare=_opening(MORE, "article.entry summary:text-is('Trace')"),
        full_page=False,
    ),
    View("day-more", "/d/today", prepare=_opening(MORE), full_page=False),
    View("day-past", f"/d/{YESTERDAY}"),
    View("day-long", "/d/today", "long", full_page=False),
    View("day-long-whole", "/d/today", "long"),
    View("day-streaming", "/d/today", "streaming"),
    View("day-failed", "/d/today", "failed"),
    View("day-german", "/d/today", "german"),
    View(
        "day-receipt",
        "/d/today",
        prepare=_clicking("details.receipt summary", "details.receipt dl"),
    ),
    View("day-keys", "/d/today", prepare=_pressing("?", "dialog[open]"), full_page=False),
    View("day-focus", "/d/today", "focus", _enter_focus_mode, full_page=False),
    View("day-deleted", "/d/today", "deleting", _delete_entry, full_page=False),
    View("day-opening", "/d/today", "opening"),
    View("day-set-aside", "/d/today", "aside"),
    View("day-without-model", "/d/today", "alone"),
    View("whole-page", "/d/2026-03-14/whole"),
    View("prompt", lambda scene: f"/e/{scene.entry}/prompt"),
    View("edit", lambda scene: f"/e/{scene.entry}/edit"),
    View("edit-stale", lambda scene: f"/e/{scene.entry}/edit", prepare=_save_stale_edit),
    View("month", "/m/2026-03"),
    View("year", "/calendar/2026"),
    View("calendar", "/calendar"),
    View(
        "calendar-popover",
        "/d/today",
        prepare=_pressing("c", "dialog[open], [popover]:popover-open"),
        full_page=False,
    ),
    View("calendar-nowhere", "/calendar", prepare=_go_to_unknown_date),
    View(
        "palette",
        "/d/today",
        prepare=_pressing("Control+k", "#palette [role=option]"),
        full_page=False,
    ),
    View("search", "/search"),
    View("search-found", "/search", prepare=_searching("river", "main .hit")),
    View(
        "search-nothing", "/search", prepare=_searching("submarine", "main :text('Nothing found')")
    ),
    View("traces", "/traces"),
    View("traces-empty", "/traces", "empty"),
    View("trace", lambda scene: f"/traces/{scene.tag_hex}"),
    View("you", "/you"),
    View("you-german", "/you", "german"),
    View("help", "/help"),
    View("deleted", "/deleted"),
    View("deleted-empty", "/deleted", "empty"),
    View("versions", lambda scene: f"/e/{scene.entry}/versions"),
    View("erase", lambda scene: f"/e/{scene.deleted_entry}/erase"),
    View("not-found", "/d/2026-02-30"),
    View("offline", "/offline", ""),
    View("print", "/print"),
    View("print-pages", "/print?from=2026-03-01&to=2026-03-14&replies=on", media="print"),
)


@contextmanager
def run_scene(folder: Path, **extra_env: str) -> Iterator[Scene]:
    """A server with its journals, its clock at NOW; `more` are settings of its environment."""
    model = ModelThread()
    clock = folder / "clock"
    clock.touch()
    env = {**model.env, "PICTURES_CLOCK": str(clock), "LLAMORA_SESSION__IDLE_TTL": "86400"}
    env |= {
        "LLAMORA_LLM__TIMEOUT_SECONDS": "3600",
        **extra_env,
    }  # the reply in the making stays so for all pictures
    server = Server(folder, folder / "cache", "dev", env, SERVER_WITH_FIXED_CLOCK)
    try:
        server.start()
        yield _seed_scene(
            server, model, lambda at: os.utime(clock, (at.timestamp(), at.timestamp()))
        )
    finally:
        server.stop()
        model.close()


def _seed_scene(server: Server, model: ModelThread, set_clock: Callable[[datetime], None]) -> Scene:
    set_clock(NOW - timedelta(hours=12))
    names = {
        "typical": "Mara",
        "empty": "Ada",
        "long": "Ferdinand",
        "streaming": "Iris",
        "failed": "Jon",
    }
    names |= {
        "german": "Greta",
        "writing": "Vera",
        "focus": "Ole",
        "deleting": "Tom",
        "opening": "Lena",
    }
    names |= {"aside": "Bo", "alone": "Alma"}
    users = {who: HttpUser(server.url, name, PASSPHRASE).register() for who, name in names.items()}
    for user in users.values():
        user.post("/recovery-code", {"code": user.recovery_code})
    mara = users["typical"]
    for day, text in PAST_ENTRIES:
        set_clock(datetime.fromisoformat(day + "T17:20+00:00"))
        mara.write(text)
    deleted = mara.write("Nothing today.")
    mara.post(f"/e/{deleted}/delete", {})
    set_clock(NOW - timedelta(hours=11, minutes=58))
    entry = mara.write(MORNING.replace("ten minutes", "five minutes"))
    revision = re.search(r'data-revision="([^"]+)"', mara.get(f"/e/{entry}/edit").text)
    mara.post(f"/e/{entry}", {"text": MORNING, "revision": revision[1] if revision else ""})
    users["writing"].write(MORNING)
    set_clock(NOW - timedelta(hours=11, minutes=49))
    question_entry = mara.write(QUESTION)
    model.model.script(Reply(_cite_passage(mara, question_entry)))
    _ask_and_wait(mara, question_entry, REPLY_CHUNKS[-1])
    set_clock(NOW - timedelta(hours=2))
    mara.write(TASK_LIST)
    for number in range(40):
        set_clock(NOW - timedelta(minutes=10 * (40 - number)))
        users["long"].write(LONG_ENTRIES[number % len(LONG_ENTRIES)])
    _seed_replies(users, model, set_clock)
    set_clock(NOW)
    tags_page = mara.get("/traces").text.partition('href="/traces/')[2]
    return Scene(server, users, entry, deleted, tags_page.partition('"')[0])


def _seed_replies(
    users: dict[str, HttpUser], model: ModelThread, set_clock: Callable[[datetime], None]
) -> None:
    """What a model has to do with a page, a writer for each state of it."""
    set_clock(NOW - timedelta(days=1))
    users["opening"].write("The kitchen is finally painted, the letter unsent.")
    set_clock(NOW - timedelta(hours=1))
    users["opening"].post("/you/openings", {"openings": "on"})
    model.model.script(
        Reply(("Yesterday ended with the letter unsent and the kitchen finally painted.",))
    )
    users["opening"].post("/d/today/opening", {})
    question_entry = users["aside"].write(QUESTION)
    for chunk in (REPLY_CHUNKS[0], "You wrote of both, and of little else that week."):
        model.model.script(Reply((chunk,)))
        _ask_and_wait(users["aside"], question_entry, chunk)
    reply_ids = re.findall(r"/r/([0-9a-f]{32})/prefer", users["aside"].get("/d/today").text)
    users["aside"].post(f"/r/{reply_ids[-1]}/prefer", {"preferred": "yes"})
    set_clock(NOW - timedelta(minutes=4))
    # Silence would end it: it goes on in pieces of nothing until the last picture is taken.
    model.model.script(Reply((REPLY_CHUNKS[0], *[""] * 7200), piece_delay=1.0))
    streaming_entry = users["streaming"].write(QUESTION)
    _ask_and_wait(users["streaming"], streaming_entry, REPLY_CHUNKS[0], is_whole=False)
    model.model.script(*(Reply(REPLY_CHUNKS[:1], fault="cut") for _ in range(4)))
    _ask_and_wait(users["failed"], users["failed"].write(QUESTION), "")
    users["alone"].write(MORNING)
    users["alone"].post("/you/replies", {"replies": "off"})
    users["german"].post("/you/settings", {"language": "de", "was-language": ""})
    for text in GERMAN_ENTRIES:
        users["german"].write(text)


def _cite_passage(user: HttpUser, entry: str) -> list[str]:
    """What is answered, with the number under which the passage it draws on stands in the prompt."""
    match = re.search(
        rf"\[(\d+)\][^\[]*{CITED_PASSAGE}", html.unescape(user.get(f"/e/{entry}/prompt").text)
    )
    return [piece.replace("[1]", f"[{match[1]}]" if match else "") for piece in REPLY_CHUNKS]


def _ask_and_wait(user: HttpUser, entry: str, expected_text: str, *, is_whole: bool = True) -> None:
    """Ask for a reply and read its page until these words stand there, whole unless said otherwise."""
    user.post(f"/e/{entry}/replies", {})
    for _ in range(600):
        page = user.get("/d/today").text
        if expected_text.strip() in page and not (is_whole and "/stop" in page):
            return
        time.sleep(0.1)
    raise AssertionError("the scripted reply did not come")


def launch_chromium(playwright: Playwright) -> Browser:
    """A Chromium that draws the same on every run."""
    rendering_flags = [
        "--font-render-hinting=none",
        "--hide-scrollbars",
        "--disable-lcd-text",
        "--force-color-profile=srgb",
    ]
    return playwright.chromium.launch(
        executable_path=find_or_install(), args=["--no-sandbox", *rendering_flags]
    )


@contextmanager
def open_view(
    scene: Scene, browser: Browser, view: View, width: int, height: int, theme: str
) -> Iterator[Page]:
    """A page that is ready for its picture."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="Europe/Berlin",
        service_workers="block",
        **THEMES[theme],  # type: ignore[arg-type]
    )
    try:
        context.set_default_timeout(30_000)
        if view.user_key:
            scene.sign_in(context, view.user_key)
        page = context.new_page()
        page.clock.set_fixed_time(NOW)
        page.goto(
            scene.server.url + (view.path if isinstance(view.path, str) else view.path(scene))
        )
        page.evaluate("document.fonts.ready.then(() => null)")
        if view.prepare:
            view.prepare(page)
        page.emulate_media(media=view.media)  # type: ignore[arg-type]
        page.locator("main").evaluate(REPLACE_RANDOM_TEXT)
        yield page
    finally:
        context.close()


def _take_screenshot(
    scene: Scene, browser: Browser, view: View, width: int, theme: str, folder: Path
) -> bool:
    """Take one picture. False where the page is wider than its window, which is said and must be mended."""
    with open_view(scene, browser, view, width, WIDTHS[width], theme) as page:
        # In a window as high as the page: one put together from several has the composer amid it.
        if view.full_page:
            for _ in range(
                3
            ):  # the height of what was never on the screen is guessed by the browser
                height = page.evaluate(
                    "new Promise(requestAnimationFrame).then(() => document.body.scrollHeight)"
                )
                page.set_viewport_size(
                    {"width": width, "height": max(WIDTHS[width], min(height, 16_000))}
                )
        path = folder / f"{view.name}-{width}-{theme}.png"
        page.screenshot(path=path, full_page=view.full_page, animations="disabled", caret="hide")
        overflow = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        if overflow > 0:
            print(f"{path.name}: {overflow} px wider than the window", file=sys.stderr)
        return overflow <= 0


def iterate_references(scene: Scene, browser: Browser) -> Iterator[tuple[str, Image.Image]]:
    """The name and the averages of each picture that is compared: first of letters alone, then of one screen each."""
    views = {view.name: view for view in VIEWS}
    with open_view(scene, browser, views["sign-in"], *SCREEN_SIZES[-1], "light") as page:
        page.evaluate(LETTERS)
        yield "letters", _averaged_screenshot(page)
    for name in COMPARED_VIEWS:
        for width, height in SCREEN_SIZES:
            with open_view(scene, browser, views[name], width, height, "light") as page:
                for theme in ("light", "dark"):
                    page.emulate_media(color_scheme=theme)
                    yield f"{name}-{width}-{theme}", _averaged_screenshot(page)


def _averaged_screenshot(page: Page) -> Image.Image:
    page.evaluate(
        "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
    )
    png = page.screenshot(animations="disabled", caret="hide")
    return Image.open(io.BytesIO(png)).convert("RGB").reduce(BLOCK)


def _write_references(scene: Scene, browser: Browser) -> int:
    """Write what `looks` sees, and by which Chromium; return how many pictures."""
    REFERENCES.mkdir(exist_ok=True)
    for old_file in REFERENCES.glob("*.png"):
        old_file.unlink()
    count = 0
    for name, image in iterate_references(scene, browser):
        image.save(REFERENCES / f"{name}.png", optimize=True)
        count += 1
    (REFERENCES / "chromium").write_text(browser.version.split(".")[0] + "\n", encoding="utf-8")
    return count


def main() -> int:
    """Take the pictures; 1 when one failed or a page is wider than its window."""
    parser = argparse.ArgumentParser(description="Pictures of every page and state.")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "--to", type=Path, help="the folder for the pictures, made if it is not there"
    )
    target.add_argument(
        "--references", action="store_true", help="write what a test compares with anew, and end"
    )
    parser.add_argument(
        "--only", nargs="*", default=[], choices=[view.name for view in VIEWS], metavar="NAME"
    )
    parser.add_argument("--width", nargs="*", type=int, default=list(WIDTHS), choices=WIDTHS)
    parser.add_argument("--theme", nargs="*", default=list(THEMES), choices=THEMES)
    options = parser.parse_args()
    if options.references:
        with (
            tempfile.TemporaryDirectory() as temporary_folder,
            run_scene(Path(temporary_folder), **WITHOUT_EMBEDDING) as scene,
            sync_playwright() as playwright,
            launch_chromium(playwright) as browser,
        ):
            print(json.dumps({"references": _write_references(scene, browser)}))
        return 0
    options.to.mkdir(parents=True, exist_ok=True)
    taken_count = failed_count = too_wide_count = 0
    with (
        tempfile.TemporaryDirectory() as temporary_folder,
        run_scene(Path(temporary_folder)) as scene,
        sync_playwright() as playwright,
    ):
        browser = launch_chromium(playwright)
        for view in VIEWS:
            if options.only and view.name not in options.only:
                continue
            for width in options.width:
                for theme in options.theme:
                    try:
                        too_wide_count += not _take_screenshot(
                            scene, browser, view, width, theme, options.to
                        )
                        taken_count += 1
                    except (
                        Exception
                    ) as error:  # one picture less; the others are taken all the same
                        failed_count += 1
                        print(f"{view.name}-{width}-{theme}: {str(error)[:400]}", file=sys.stderr)
        browser.close()
    print(json.dumps({"taken": taken_count, "failed": failed_count, "too_wide": too_wide_count}))
    return 1 if failed_count or too_wide_count else 0


if __name__ == "__main__":
    sys.exit(main())
