"""How the page feels: `uv run python -m scripts.bench.page`, one JSON object on the last line.

A `llamora-server prod` of its own and a headless Chromium, on loopback, a cold cache for every load. Everything is
done once to warm up and then `--runs` times, each in a browser context of its own; a figure is the median of the runs,
of what was worst in each. Times are in milliseconds and are Chromium's own: LCP and CLS; an interaction lasts from the
press to the next picture (Event Timing, in steps of 8, and 0 for what is under 16); a frame is the time between two
calls of requestAnimationFrame. What made a frame long is named by the browser (Long Animation Frames). Presses are made
at points that were looked up before, since the driver's own script would count. What another window wrote is timed from
its answer to its appearance. The load of the machine stands beside the figures: above one waiting process for each
processor they say something of that, too.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from llamora.search.index import Document, UserIndex
from scripts.browser import find_or_install
from tests.server_process import HttpUser, Server

DAY = "2024-03-12"
SEED = 1660
LONG_FRAME_MS = 50
SETTLE_MS = 500
GOALS = {
    "lcp_ms": 500.0,
    "cls": 0.0,
    "requests": 12.0,
    "typing_ms": 50.0,
    "typing_frame_ms": 50.0,
    "scrolling_frame_ms": 50.0,
    "more_ms": 50.0,
    "calendar_ms": 50.0,
    "palette_ms": 50.0,
    "in_step_ms": 1000.0,
    "year_ms": 50.0,
}
WATCH_SCRIPT = """
window.seen = {lcp: 0, cls: 0, events: [], frames: [], long: []};
const watch = (type, take, more) => new PerformanceObserver((list) => list.getEntries().forEach(take))
  .observe({type, buffered: true, ...more});
watch("largest-contentful-paint", (e) => { seen.lcp = e.startTime; });
watch("layout-shift", (e) => { if (!e.hadRecentInput) seen.cls += e.value; });
watch("event", (e) => { if (e.interactionId) seen.events.push(e.duration); }, {durationThreshold: 16});
watch("long-animation-frame", (e) => seen.long.push({
  ms: e.duration,
  why: e.scripts.map((s) => `${s.invoker} ${s.sourceFunctionName}`.trim().replace(/https?:\\S+\\//, "")).join(", ")
    || "style, layout and painting",
}));
let last = 0;
const frame = (now) => { if (last) seen.frames.push(now - last); last = now; requestAnimationFrame(frame); };
requestAnimationFrame(frame);
"""
TAKE_SCRIPT = "(() => { const was = {...seen}; seen.events = []; seen.frames = []; seen.long = []; return was; })()"
LOAD_SCRIPT = """(() => {
  const [page] = performance.getEntriesByType("navigation"), others = performance.getEntriesByType("resource");
  return {
    first_byte_ms: page.responseStart, html_bytes: page.encodedBodySize, requests: 1 + others.length,
    bytes: [page, ...others].reduce((sum, e) => sum + e.transferSize, 0),
    elements: document.getElementsByTagName("*").length,
  };
})()"""


class WatchedPage:
    """A page of a browser that knows nothing yet, watched from its first moment."""

    def __init__(self, browser: Browser, user: HttpUser, path: str) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 860})
        jar = user.http.cookies.jar
        self.context.add_cookies(
            [{"name": c.name, "value": c.value or "", "url": user.url} for c in jar]
        )
        self.page: Page = self.context.new_page()
        self.page.add_init_script(WATCH_SCRIPT)
        self.page.goto(user.url + path)
        self.page.wait_for_timeout(SETTLE_MS)

    def take_observations(self) -> dict[str, Any]:
        """What was seen since the last time; and begin anew."""
        self.page.wait_for_timeout(SETTLE_MS)
        return self.page.evaluate(TAKE_SCRIPT)

    def press(self, selector: str) -> dict[str, Any]:
        """Press something; what was seen."""
        box = self.page.locator(selector).first.bounding_box()
        assert box is not None, selector
        self.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        self.take_observations()
        self.page.mouse.down()
        self.page.mouse.up()
        return self.take_observations()


def _measure_load(
    browser: Browser, user: HttpUser
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """One load of the day, scrolled to its end."""
    watched = WatchedPage(browser, user, f"/d/{DAY}")
    load_figures: dict[str, float] = watched.page.evaluate(LOAD_SCRIPT)
    watched.page.mouse.wheel(0, 20_000)
    observations = watched.take_observations()
    watched.context.close()
    return {
        "lcp_ms": observations["lcp"],
        "cls": observations["cls"],
        **load_figures,
    }, observations["long"]


def _measure_use(browser: Browser, user: HttpUser) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Type, scroll and press on the day: the longest interaction and the longest frame of each."""
    watched = WatchedPage(browser, user, f"/d/{DAY}")
    page = watched.page
    page.locator("#write").click()
    page.keyboard.type("warm up ")
    watched.take_observations()
    page.keyboard.type(
        "Three herons over the weir, and one line after the other. " * 3 + "\n- a\nb\nc", delay=25
    )
    typing = watched.take_observations()
    for step in range(60):
        page.mouse.wheel(0, 500 if step < 40 else -900)
        page.wait_for_timeout(20)
    scrolling = watched.take_observations()
    page.mouse.wheel(0, -100_000)
    watched.take_observations()
    more = watched.press("article.entry [href$='/more']")
    calendar = watched.press(".days .month")
    page.keyboard.press("Escape")
    watched.take_observations()
    page.keyboard.press("Control+k")
    page.wait_for_timeout(SETTLE_MS)
    page.keyboard.type("last fri", delay=60)
    palette = watched.take_observations()
    watched.context.close()
    parts = {
        "typing": typing,
        "scrolling": scrolling,
        "more": more,
        "calendar": calendar,
        "palette": palette,
    }
    figures: dict[str, float] = {}
    for name, observations in parts.items():
        if name != "scrolling":
            figures[f"{name}_ms"] = max(observations["events"], default=0)
        figures[f"{name}_frame_ms"] = max(observations["frames"])
        figures[f"{name}_frames_over_{LONG_FRAME_MS}"] = sum(
            frame > LONG_FRAME_MS for frame in observations["frames"]
        )
    return figures, [
        {**long, "why": f"{name}: {long['why']}"}
        for name, observations in parts.items()
        for long in observations["long"]
    ]


def repeat_runs(browser: Browser, user: HttpUser, runs: int) -> tuple[dict[str, float], list[str]]:
    """The medians of all runs but the first; and what was long in them, the most frequent first."""
    collected: dict[str, list[float]] = {}
    long: Counter[str] = Counter()
    worst: dict[str, float] = {}
    for run in range(runs + 1):
        for prefix, measure_once in (("load", _measure_load), ("", _measure_use)):
            figures, long_frames = measure_once(browser, user)
            if not run:
                continue
            for name, value in figures.items():
                collected.setdefault(name, []).append(value)
            for long_frame in long_frames:
                reason = long_frame["why"] if not prefix else f"{prefix}: {long_frame['why']}"
                long[reason] += 1
                worst[reason] = max(worst.get(reason, 0), long_frame["ms"])
    return (
        {name: round(statistics.median(values), 5) for name, values in collected.items()},
        [
            f"{count} in {runs} runs, up to {worst[reason]:.0f} ms, {reason}"
            for reason, count in long.most_common(12)
        ],
    )


def measure_live_update(browser: Browser, user: HttpUser, runs: int) -> dict[str, float]:
    """How long until a page shows what another window wrote."""
    watched = WatchedPage(browser, user, "/d/2024-03-13")
    waits: list[float] = []
    for number in range(runs + 1):
        entry = user.write(f"Written elsewhere {number}.", "2024-03-13")
        started = time.perf_counter()
        watched.page.locator(f"#e-{entry}").wait_for()
        waits.append((time.perf_counter() - started) * 1000)
    watched.context.close()
    return {
        "in_step_ms": round(statistics.median(waits[1:]), 1),
        "in_step_longest_ms": round(max(waits[1:]), 1),
    }


def measure_year(entries: int) -> dict[str, float]:
    """How long the words of a year take in an index of many entries over thirty years: the first time and later."""
    rng = random.Random(SEED)
    index = UserIndex(10**9)
    first = datetime(1995, 1, 1, tzinfo=UTC).timestamp()
    for start in range(0, entries, 1000):
        documents: list[Document] = []
        for _ in range(min(1000, entries - start)):
            at = datetime.fromtimestamp(first + rng.random() * 30 * 365.25 * 86400, UTC)
            documents.append(
                Document(
                    rng.randbytes(16),
                    1,
                    at.date(),
                    at,
                    True,
                    "heron and weir " * rng.randint(1, 60),
                )
            )
        index.put(documents)
    times: list[float] = []
    for number in (2005, 2005, 2006, 2006):
        started = time.perf_counter()
        index.word_counts_by_day(
            datetime(number, 1, 1, tzinfo=UTC).date(), datetime(number, 12, 31, tzinfo=UTC).date()
        )
        times.append((time.perf_counter() - started) * 1000)
    index.close()
    return {
        "year_ms": round(times[2], 2),
        "year_again_ms": round(times[3], 2),
        "year_entries": entries,
    }


def measure(entries: int, indexed: int, runs: int) -> tuple[dict[str, float], list[str]]:
    """All figures, on a day with so many entries; and what took long."""
    env = {
        "LLAMORA_LLM__EMBEDDED": "false",
        "LLAMORA_LLM__UPSTREAM__HOST": "http://127.0.0.1:9",  # nobody is asked; its buttons are there
        "LLAMORA_EMBEDDING__ENABLED": "false",
    }
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = Server(
            folder=Path(folder), cache=Path(folder) / "cache", mode="prod", env=env
        ).start()
        browser = playwright.chromium.launch(
            executable_path=find_or_install(), args=["--no-sandbox"]
        )
        try:
            user = HttpUser(server.url).register()
            for number in range(entries):
                user.write(
                    f"Entry {number}. " + "Up before the alarm, along the river, in the dark. " * 6,
                    DAY,
                )
            figures, long = repeat_runs(browser, user, runs)
            figures |= measure_live_update(browser, user, runs * 3)
        finally:
            browser.close()
            server.stop()
    return figures | measure_year(indexed), long


def main() -> int:
    """Measure, and print what was found beside the goals, and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=200, help="entries on the day")
    parser.add_argument(
        "--indexed",
        type=int,
        default=100_000,
        help="entries in the index that a year is taken from",
    )
    parser.add_argument("--runs", type=int, default=5, help="counted runs")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    figures, long = measure(options.entries, options.indexed, options.runs)
    for name, value in figures.items():
        print(f"{name:28} {value:>12}" + (f"   goal {GOALS[name]:g}" if name in GOALS else ""))
    for line in long:
        print(line)
    loads = [round(load_before, 1), round(os.getloadavg()[0], 1)]
    print(json.dumps({"figures": figures, "goals": GOALS, "long": long, "load": loads}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
