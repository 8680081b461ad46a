"""Replies in many windows of one browser: `python -m scripts.bench.windows`. Prints one JSON object last.

- five: five replies are being written on one page and seven windows are open; milliseconds to keep an
  entry, to stop a reply and to open one more window;
- twenty: replies in ten windows, two in each, while windows are reloaded, closed and killed; how many
  texts that were shown were not a beginning of the whole, and how many replies were not whole at last.
"""

import random
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Page, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from scripts.bench import harness
from scripts.browser import find_or_install
from scripts.command import run
from tests.browser.conftest import open_as_user
from tests.scripted_model import ModelThread, Reply
from tests.server_process import HttpUser, Server

PIECES = [f"word{number} " for number in range(300)]
WHOLE = "".join(PIECES).strip()
WINDOWS = 10
SHOWN = "[...document.querySelectorAll('.reply .prose:not(:has(.waiting))')].map(e => e.textContent.trim())"


def _measure_five(context: BrowserContext, user: HttpUser, model: ModelThread) -> dict[str, Any]:
    page, keep, stop, load = context.new_page(), harness.Timer(), harness.Timer(), harness.Timer()
    for number in range(5):
        user.write(f"Entry {number}.")
        model.hold_reply(["One ", "two."], 1)
    open_as_user(page, user)
    for number in range(5):
        page.get_by_role("button", name="Reply", exact=True).nth(number).click()
        page.locator("article.reply").nth(number).wait_for()
    for _ in range(6):
        context.new_page().goto(f"{user.url}/d/today")
    for number in range(10):
        with load.lap():
            window = context.new_page()
            window.goto(f"{user.url}/d/today")
        window.close()
        page.locator("#write").fill(f"Meanwhile {number}.")
        with keep.lap():
            page.locator("#write").press("Control+Enter")
            page.locator("article.entry").nth(5 + number).wait_for()
    for left in range(5, 0, -1):
        with stop.lap():
            page.locator("[data-stop]").first.dispatch_event("click")  # `click` waits for frames
            page.locator("[data-stop]").nth(left - 1).wait_for(state="detached")
    for window in context.pages:
        window.close()
    return {"keep": keep.quantiles(), "stop": stop.quantiles(), "open": load.quantiles()}


def _wrong_texts(page: Page) -> list[str]:
    """Return what the replies of a window show that is not a beginning of the whole."""
    texts: list[str] = page.evaluate(SHOWN)
    return [text for text in texts if not WHOLE.startswith(text)]


def _measure_twenty(
    context: BrowserContext, user: HttpUser, model: ModelThread, rng: random.Random
) -> dict[str, Any]:
    days = [f"2026-07-{number + 1:02}" for number in range(WINDOWS)]
    model.model.default_reply = Reply(pieces=PIECES, piece_delay=0.08)
    pages = {day: context.new_page() for day in days}
    for day, page in pages.items():
        entries = [user.write(f"What of {day}, {each}?", day) for each in ("one", "two")]
        page.goto(f"{user.url}/d/{day}")
        for entry in entries:
            user.ask(entry)
    wrong, done = list[str](), {"reload": 0, "close": 0, "kill": 0}
    until = time.monotonic() + 30
    while time.monotonic() < until:
        day = rng.choice(days)
        what = rng.choice(list(done))
        done[what] += 1
        with suppress(PlaywrightError):  # a killed window answers nothing
            if what == "kill":
                pages[day].goto("chrome://crash", timeout=1000)
        if what == "reload":
            pages[day].reload()
        else:
            pages[day].close()
            pages[day] = context.new_page()
            pages[day].goto(f"{user.url}/d/{day}")
        for page in pages.values():
            wrong += _wrong_texts(page)
    deadline = time.monotonic() + 60
    shown = {day: list[str]() for day in days}
    while time.monotonic() < deadline and any(texts != [WHOLE] * 2 for texts in shown.values()):
        time.sleep(0.5)
        shown = {day: page.evaluate(SHOWN) for day, page in pages.items()}
    return {
        **done,
        "wrong": len(wrong),
        "not_whole": sum(texts != [WHOLE] * 2 for texts in shown.values()),
        "requests": len(model.model.chat_requests),
    }


def measure(folder: Path) -> dict[str, Any]:
    """Return all figures."""
    model = ModelThread()
    env = model.env | {"LLAMORA_LLM__SLOTS": "16"}
    server = Server(folder / "main", folder / "cache", mode="prod", env=env).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_or_install(), args=["--no-sandbox"]
        )
        try:
            user, context = HttpUser(server.url).register(), browser.new_context()
            harness.print_progress("five replies and seven windows")
            figures = {"five": _measure_five(context, user, model)}
            harness.print_progress("twenty replies in ten windows")
            rng = random.Random(1)
            return figures | {"twenty": _measure_twenty(context, user, model, rng)}
        finally:
            browser.close()
            server.stop()
            model.close()


if __name__ == "__main__":
    sys.exit(run(measure))
