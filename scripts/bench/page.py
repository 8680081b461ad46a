"""How the page feels: `uv run python -m scripts.bench.page`, one JSON object on the last line.

A `llamora-server prod` of its own and a headless Chromium, on loopback, cold cache for every load. Times are in
milliseconds. LCP, CLS and the time of an interaction (from the press to the next picture, which the browser gives in
steps of 8) are what Chromium reports itself; a frame is the time between two calls of requestAnimationFrame. What
another window wrote is timed from its answer to its appearance. The load of the machine stands beside the figures.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from llamora.search.index import Document, UserIndex
from scripts.browser import find_or_bring
from tests.served import Server, Writer

DAY = "2024-03-12"
SEED = 1660
GOALS = {
    "lcp_ms": 500.0,
    "cls": 0.0,
    "interaction_ms": 50.0,
    "typing_frame_ms": 50.0,
    "scrolling_frame_ms": 50.0,
    "in_step_ms": 1000.0,
    "year_ms": 50.0,
}
WATCH = """
window.seen = {lcp: 0, cls: 0, events: [], frames: [], long: []};
new PerformanceObserver((list) => { for (const e of list.getEntries()) seen.lcp = e.startTime; })
  .observe({type: "largest-contentful-paint", buffered: true});
new PerformanceObserver((list) => { for (const e of list.getEntries()) if (!e.hadRecentInput) seen.cls += e.value; })
  .observe({type: "layout-shift", buffered: true});
new PerformanceObserver((list) => { for (const e of list.getEntries()) seen.events.push(e.duration); })
  .observe({type: "event", durationThreshold: 16});
let last = 0;
const frame = (now) => { if (last) seen.frames.push(now - last); last = now; requestAnimationFrame(frame); };
requestAnimationFrame(frame);
"""


def opened(browser: Browser, writer: Writer, path: str) -> Page:
    """A page of a browser that knows nothing yet, watched from its first moment."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    jar = writer.http.cookies.jar
    context.add_cookies([{"name": c.name, "value": c.value or "", "url": writer.url} for c in jar])
    page = context.new_page()
    page.add_init_script(WATCH)
    page.goto(writer.url + path)
    page.wait_for_timeout(600)
    return page


def rested(page: Page) -> dict[str, Any]:
    """What was seen since the last time; and begin anew."""
    page.wait_for_timeout(400)
    return page.evaluate("(() => { const was = {...seen}; seen.events = []; seen.frames = []; return was; })()")


def loads(browser: Browser, writer: Writer, runs: int) -> dict[str, float]:
    """LCP and CLS of the day, each load with an empty cache."""
    found: list[dict[str, Any]] = []
    for _ in range(runs + 1):
        page = opened(browser, writer, f"/d/{DAY}")
        page.mouse.wheel(0, 20_000)
        found.append(rested(page))
        page.context.close()
    return {
        "lcp_ms": round(statistics.median(each["lcp"] for each in found[1:]), 1),
        "cls": round(max(each["cls"] for each in found), 5),
    }


def use(browser: Browser, writer: Writer) -> dict[str, float]:
    """Type, scroll and press on the day; the longest frames and the longest interaction."""
    page = opened(browser, writer, f"/d/{DAY}")
    page.locator("#write").click()
    page.keyboard.type("warm up ")
    rested(page)
    page.keyboard.type("Three herons over the weir, and one line after the other. " * 3 + "\n- a\nb\nc", delay=25)
    typing = rested(page)
    for step in range(60):
        page.mouse.wheel(0, 500 if step < 40 else -900)
        page.wait_for_timeout(20)
    scrolling = rested(page)
    page.locator("article.entry").first.get_by_text("More", exact=True).click()
    page.locator(".days .month").click()
    page.locator("#calendar").wait_for(state="visible")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+k")
    page.locator("#ways [role=option]").first.wait_for()
    page.keyboard.type("last fri", delay=40)
    pressing = rested(page)
    page.context.close()
    return {
        "typing_frame_ms": round(max(typing["frames"]), 1),
        "typing_frames_over_50": sum(frame > 50 for frame in typing["frames"]),
        "typing_event_ms": max(typing["events"], default=0),
        "scrolling_frame_ms": round(max(scrolling["frames"]), 1),
        "scrolling_frames_over_50": sum(frame > 50 for frame in scrolling["frames"]),
        "interaction_ms": max(pressing["events"], default=0),
    }


def in_step(browser: Browser, writer: Writer, runs: int) -> dict[str, float]:
    """How long until a page shows what another window wrote."""
    page = opened(browser, writer, "/d/2024-03-13")
    waits: list[float] = []
    for number in range(runs + 1):
        entry = writer.write(f"Written elsewhere {number}.", "2024-03-13")
        begun = time.perf_counter()
        page.locator(f"#e-{entry}").wait_for()
        waits.append((time.perf_counter() - begun) * 1000)
    page.context.close()
    return {"in_step_ms": round(statistics.median(waits[1:]), 1), "in_step_longest_ms": round(max(waits[1:]), 1)}


def year(entries: int) -> dict[str, float]:
    """How long the words of a year take in an index of many entries over thirty years: the first time and later."""
    chance = random.Random(SEED)
    index = UserIndex(10**9)
    first = datetime(1995, 1, 1, tzinfo=UTC).timestamp()
    for start in range(0, entries, 1000):
        made: list[Document] = []
        for _ in range(min(1000, entries - start)):
            at = datetime.fromtimestamp(first + chance.random() * 30 * 365.25 * 86400, UTC)
            made.append(
                Document(chance.randbytes(16), 1, at.date(), at, True, "heron and weir " * chance.randint(1, 60))
            )
        index.put(made)
    times: list[float] = []
    for number in (2005, 2005, 2006, 2006):
        begun = time.perf_counter()
        index.words_on(datetime(number, 1, 1, tzinfo=UTC).date(), datetime(number, 12, 31, tzinfo=UTC).date())
        times.append((time.perf_counter() - begun) * 1000)
    index.close()
    return {"year_ms": round(times[2], 2), "year_again_ms": round(times[3], 2), "year_entries": entries}


def measure(entries: int, indexed: int, runs: int) -> dict[str, float]:
    """All figures, on a day with so many entries."""
    env = {
        "LLAMORA_LLM__EMBEDDED": "false",
        "LLAMORA_LLM__UPSTREAM__HOST": "http://127.0.0.1:9",  # nobody is asked; its buttons are there
        "LLAMORA_EMBEDDING__ENABLED": "false",
    }
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = Server(folder=Path(folder), cache=Path(folder) / "cache", mode="prod", env=env).start()
        browser = playwright.chromium.launch(executable_path=find_or_bring(), args=["--no-sandbox"])
        try:
            writer = Writer(server.url).register()
            for number in range(entries):
                writer.write(f"Entry {number}. " + "Up before the alarm, along the river, in the dark. " * 6, DAY)
            figures = loads(browser, writer, runs) | use(browser, writer) | in_step(browser, writer, runs * 3)
        finally:
            browser.close()
            server.stop()
    return figures | year(indexed)


def main() -> int:
    """Measure, and print what was found beside the goals, and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=200, help="entries on the day")
    parser.add_argument("--indexed", type=int, default=100_000, help="entries in the index that a year is taken from")
    parser.add_argument("--runs", type=int, default=5, help="counted loads")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    figures = measure(options.entries, options.indexed, options.runs)
    for name, goal in GOALS.items():
        print(f"{name:24} {figures[name]!s:>10}   goal {goal}")
    print(json.dumps({"figures": figures, "goals": GOALS, "load": [round(before, 1), round(os.getloadavg()[0], 1)]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
