"""A real Chromium. It fails a test on any violation of the CSP, any error on the console, any uncaught exception."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

from scripts.browser import find_or_bring

# Playwright waits 5 s for what is expected; two cores with other work may need longer for any of it.
expect.set_options(timeout=30_000)

AXE = Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js"


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as made:
        yield made


@pytest.fixture(scope="session")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(
        executable_path=find_or_bring(),
        args=[
            "--no-sandbox",
            "--disable-quic",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            # Only what the journal asks for is of interest; the browser's own business stays at home.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost, EXCLUDE *.localhost",
        ],
    )
    yield browser
    browser.close()


@dataclass
class Console:
    """What the pages of a test complained of. axe measures with inline styles, which our CSP refuses it."""

    complaints: list[str] = field(default_factory=list)
    measuring: bool = False


@pytest.fixture
def console() -> Console:
    return Console()


@pytest.fixture
def new_page(chromium: Browser, console: Console) -> Iterator[Callable[..., Page]]:
    """Opens pages whose every complaint is collected and must stay empty."""
    contexts: list[BrowserContext] = []

    def make(**options: object) -> Page:
        context = chromium.new_context(viewport={"width": 1280, "height": 860}, **options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()

        def heard(message: object) -> None:
            kind, text = message.type, message.text  # type: ignore[attr-defined]
            # Chromium writes every answer of 4xx and 5xx to the console, asked for or not.
            if console.measuring:
                return
            if kind in ("error", "warning") and not text.startswith("Failed to load resource: the server responded"):
                console.complaints.append(f"{kind} on {page.url.split('/', 3)[-1]}: {text} {message.location}")  # type: ignore[attr-defined]

        page.on("console", heard)
        page.on("pageerror", lambda error: console.complaints.append(f"exception: {error}"))
        return page

    yield make
    for context in contexts:
        context.close()
    assert not console.complaints, "\n".join(console.complaints)


@pytest.fixture
def axe(console: Console) -> Callable[[Page], None]:
    """Fails on any violation axe-core finds, in light and in dark."""
    source = AXE.read_text(encoding="utf-8")

    def check(page: Page) -> None:
        page.wait_for_timeout(20)  # let the page's own complaints arrive first
        console.measuring = True
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
            # A colour on its way from one theme to the other has a contrast of its own.
            page.evaluate("document.getAnimations().forEach((a) => { try { a.finish() } catch {} })")
            page.evaluate(source)
            found = page.evaluate(
                "async () => (await axe.run({preload: false})).violations.map(v => [v.id, v.nodes.map(n => n.html)])"
            )
            assert not found, (page.url, scheme, found)
        page.emulate_media(color_scheme="light")
        page.wait_for_timeout(20)
        console.measuring = False

    return check
