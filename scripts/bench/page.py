"""Measure how the page feels: `uv run python -m scripts.bench.page`, one JSON object on the last line.

A `llamora-server prod` of its own and a headless Chromium, on loopback, a cold cache for every load. Everything is
done once to warm up and then `--runs` times, each in a browser context of its own; a figure is the median of the runs,
of what was worst in each. Times are in milliseconds and are Chromium's own: LCP and CLS; an interaction lasts from the
press to the next picture (Event Timing, in steps of 8, and 0 for what is under 16); a frame is the time between two
calls of requestAnimationFrame. What made a frame long is named by the browser (Long Animation Frames). Presses are made
at points that were looked up before, since the driver's own script would count. What another window wrote is timed from
its answer to its appearance. The load of the machine stands beside the figures: above one waiting process for each
processor they say something of that, too.
"""

import random
import statistics
import sys
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from llamora.search.index import Document, UserIndex
from scripts.bench.harness import SEED, WITHOUT_EMBEDDED_MODEL, WITHOUT_EMBEDDING, Timer, timed
from scripts.browser import find_or_install
from scripts.command import run
from scripts.processes import load_average
from tests.server_process import HttpUser, Server

DAY = "2024-03-12"
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
    """Watch a page of a browser that knows nothing yet from its first moment."""

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
        """Return what was seen since the last time; begin anew."""
        self.page.wait_for_timeout(SETTLE_MS)
        return self.page.evaluate(TAKE_SCRIPT)

    def press(self, selector: str) -> dict[str, Any]:
        """Press something; return what was seen."""
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


def _use_day(browser: Browser, user: HttpUser) -> dict[str, dict[str, Any]]:
    """Type, scroll and press on the day; what was seen meanwhile."""
    watched = WatchedPage(browser, user, f"/d/{DAY}")
    page, seen = watched.page, dict[str, dict[str, Any]]()
    page.locator("#write").click()
    page.keyboard.type("warm up ")
    watched.take_observations()
    text = "Three herons over the weir, and one line after the other. " * 3 + "\n- a\nb\nc"
    page.keyboard.type(text, delay=25)
    seen["typing"] = watched.take_observations()
    for step in range(60):
        page.mouse.wheel(0, 500 if step < 40 else -900)
        page.wait_for_timeout(20)
    seen["scrolling"] = watched.take_observations()
    page.mouse.wheel(0, -100_000)
    watched.take_observations()
    seen["more"] = watched.press("article.entry [href$='/more']")
    seen["calendar"] = watched.press(".days .month")
    page.keyboard.press("Escape")
    watched.take_observations()
    page.keyboard.press("Control+k")
    page.wait_for_timeout(SETTLE_MS)
    page.keyboard.type("last fri", delay=60)
    seen["palette"] = watched.take_observations()
    watched.context.close()
    return seen


def _measure_use(browser: Browser, user: HttpUser) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """The longest interaction and the longest frame of each, and what made frames long."""
    figures, long_frames = dict[str, float](), list[dict[str, Any]]()
    for name, seen in _use_day(browser, user).items():
        if name != "scrolling":
            figures[f"{name}_ms"] = max(seen["events"], default=0)
        figures[f"{name}_frame_ms"] = max(seen["frames"])
        over = sum(frame > LONG_FRAME_MS for frame in seen["frames"])
        figures[f"{name}_frames_over_{LONG_FRAME_MS}"] = over
        long_frames += [{**long, "why": f"{name}: {long['why']}"} for long in seen["long"]]
    return figures, long_frames


def repeat_runs(browser: Browser, user: HttpUser, runs: int) -> tuple[dict[str, float], list[str]]:
    """Return the medians of all runs but the first; and what was long in them, the most frequent first."""
    collected: dict[str, list[float]] = {}
    long: Counter[str] = Counter()
    worst: dict[str, float] = {}
    for number in range(runs + 1):
        for prefix, measure_once in (("load", _measure_load), ("", _measure_use)):
            figures, long_frames = measure_once(browser, user)
            if not number:
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
    """Time until a page shows what another window wrote."""
    watched = WatchedPage(browser, user, "/d/2024-03-13")
    timer = Timer(warm_up=1)
    for number in range(runs + 1):
        entry = user.write(f"Written elsewhere {number}.", "2024-03-13")
        with timer.lap():
            watched.page.locator(f"#e-{entry}").wait_for()
    watched.context.close()
    return {"in_step_ms": timer.median_ms, "in_step_longest_ms": timer.quantiles()["most_ms"]}


def measure_year(entries: int) -> dict[str, float]:
    """Count the words of a year in an index of many entries over thirty years, for the first time and again."""
    rng = random.Random(SEED)
    index = UserIndex(10**9)
    first = datetime(1995, 1, 1, tzinfo=UTC).timestamp()

    def make_document() -> Document:
        at = datetime.fromtimestamp(first + rng.random() * 30 * 365.25 * 86400, UTC)
        text = "heron and weir " * rng.randint(1, 60)
        return Document(rng.randbytes(16), 1, at.date(), at, True, text)

    for start in range(0, entries, 1000):
        index.put([make_document() for _ in range(min(1000, entries - start))])
    years = iter((2005, 2005, 2006, 2006))

    def count_words() -> None:
        year = next(years)
        index.word_counts_by_day(date(year, 1, 1), date(year, 12, 31))

    later = timed(count_words, 2, warm_up=2).seconds
    index.close()
    year_ms, year_again_ms = (round(each * 1000, 2) for each in later)
    return {"year_ms": year_ms, "year_again_ms": year_again_ms, "year_entries": entries}


def _measure_pages(folder: Path, entries: int, runs: int) -> tuple[dict[str, float], list[str]]:
    """What a browser sees of a day with so many entries; and what took long."""
    # Nobody is asked at that address; the buttons are there.
    env = {"LLAMORA_LLM__UPSTREAM__HOST": "http://127.0.0.1:9"}
    env |= WITHOUT_EMBEDDED_MODEL | WITHOUT_EMBEDDING
    text = "Up before the alarm, along the river, in the dark. " * 6
    with sync_playwright() as playwright:
        server = Server(folder, folder / "cache", mode="prod", env=env).start()
        browser = playwright.chromium.launch(
            executable_path=find_or_install(), args=["--no-sandbox"]
        )
        try:
            user = HttpUser(server.url).register()
            for number in range(entries):
                user.write(f"Entry {number}. {text}", DAY)
            figures, long = repeat_runs(browser, user, runs)
            return figures | measure_live_update(browser, user, runs * 3), long
        finally:
            browser.close()
            server.stop()


def measure(folder: Path, entries: int, indexed: int, runs: int) -> dict[str, Any]:
    """Return all figures beside their goals, and what took long."""
    load_before = load_average()[:1]
    figures, long = _measure_pages(folder, entries, runs)
    figures |= measure_year(indexed)
    for name, value in figures.items():
        print(f"{name:28} {value:>12}" + (f"   goal {GOALS[name]:g}" if name in GOALS else ""))
    for line in long:
        print(line)
    loads = load_before + load_average()[:1]
    return {"figures": figures, "goals": GOALS, "long": long, "load": loads}


if __name__ == "__main__":
    indexed = {"type": int, "default": 100_000, "help": "entries in the index of a year"}
    sys.exit(run(measure, entries=200, indexed=indexed, runs=5))
