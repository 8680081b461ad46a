"""A real Chromium. It fails a test on any violation of the CSP, any error on the console, any uncaught exception."""

import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Playwright,
    expect,
    sync_playwright,
)
from playwright.sync_api import Error as PlaywrightError

from scripts.browser import find_or_install
from tests.browser.firefox import find as find_firefox
from tests.scripted_model import ModelThread
from tests.server_process import HttpUser, Server

# Playwright waits 5 s for what is expected; two cores with other work may need longer for any of it.
expect.set_options(timeout=30_000)

FIREFOX = Path(__file__).with_name("firefox.py")
NUMBERS = count(1)
WITHOUT_MODELS = {"LLAMORA_LLM__ENABLED": "false", "LLAMORA_EMBEDDING__ENABLED": "false"}
AXE = Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js"


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright_instance:
        yield playwright_instance


@pytest.fixture(scope="session")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(
        executable_path=find_or_install(),
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


@pytest.fixture(scope="session")
def firefox(playwright: Playwright, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The Firefox of this machine; where there is none, what asks for it is skipped."""
    installed = find_firefox()
    if installed is None:
        pytest.skip("no Firefox is installed here (Debian: apt-get install firefox-esr)")
    if sys.platform == "win32":
        pytest.skip("Firefox is started by a shell script, which Windows does not run")
    start = tmp_path_factory.mktemp("firefox") / "start"
    command = [sys.executable, str(FIREFOX), str(installed)]
    start.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', encoding="utf-8")
    start.chmod(0o755)
    try:
        browser = playwright.firefox.launch(
            channel="moz-firefox",
            executable_path=start,
            timeout=120_000,
            firefox_user_prefs={
                "ui.prefersReducedMotion": 1,
                "layout.css.prefers-color-scheme.content-override": 1,
            },
        )
    except PlaywrightError as error:
        pytest.skip(f"{installed} does not start for a test: {str(error).splitlines()[0]}")
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def shared_server(
    tmp_path_factory: pytest.TempPathFactory, cache: Path
) -> Iterator[Callable[..., Server]]:
    """Servers that run until the last test, one for each environment: each test brings a user.

    A test that stops its server, or looks at everybody's files, makes one with `serve`.
    """
    servers: dict[tuple[tuple[str, str], ...], Server] = {}

    def start(env: Mapping[str, str] = WITHOUT_MODELS) -> Server:
        key = tuple(sorted(env.items()))
        if key not in servers:
            folder = tmp_path_factory.mktemp("shared")
            servers[key] = Server(folder=folder, cache=cache, env=env).start()
        return servers[key]

    yield start
    for server in servers.values():
        server.stop()


def register(server: Server) -> HttpUser:
    """Register somebody whose name no other test has."""
    return HttpUser(server.url, name=f"Alice {next(NUMBERS)}").register()


@pytest.fixture
def model() -> Iterator[ModelThread]:
    thread = ModelThread()
    yield thread
    thread.close()


@pytest.fixture
def server(serve: Callable[..., Server], model: ModelThread) -> Server:
    """A server whose model is the scripted one; a file that needs another has its own."""
    return serve(env=model.env).start()


@dataclass
class Console:
    """What the pages of a test complained of. axe measures with inline styles, which our CSP refuses it."""

    complaints: list[str] = field(default_factory=list)
    is_measuring: bool = False


@pytest.fixture
def console() -> Console:
    return Console()


@pytest.fixture
def new_page(chromium: Browser, console: Console) -> Iterator[Callable[..., Page]]:
    """Opens pages whose every complaint is collected and must stay empty; of a browser that is not Chromium by `by`."""
    contexts: list[BrowserContext] = []

    def open_page(from_browser: Browser = chromium, **options: object) -> Page:
        context = from_browser.new_context(
            **{"viewport": {"width": 1280, "height": 860}, **options}
        )  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()

        def on_console_message(message: object) -> None:
            kind, text = message.type, message.text  # type: ignore[attr-defined]
            # Chromium writes every answer of 4xx and 5xx to the console, asked for or not.
            if console.is_measuring:
                return
            if kind in ("error", "warning") and not text.startswith(
                (
                    "Failed to load resource: the server responded",
                    "Service Worker registration blocked by Playwright",  # as a test asked for
                )
            ):
                console.complaints.append(
                    f"{kind} on {page.url.split('/', 3)[-1]}: {text} {message.location}"  # type: ignore[attr-defined]
                )  # type: ignore[attr-defined]

        page.on("console", on_console_message)
        page.on("pageerror", lambda error: console.complaints.append(f"exception: {error}"))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not console.complaints, "\n".join(console.complaints)


# Colours that are on their way from one theme to the other have a contrast of their own: wait until none is, and
# until what is painted is what the style sheet says of this theme.
WAIT_FOR_COLOURS = """async scheme => {
  const frame = () => new Promise(requestAnimationFrame);
  const is_it = () => matchMedia(`(prefers-color-scheme: ${scheme})`).matches
    && matchMedia("(prefers-reduced-motion: reduce)").matches
    && document.getAnimations().every(each => each.playState !== "running" && !each.pending);
  const end = performance.now() + 60000;
  for (let calm = 0; calm < 3; calm = is_it() ? calm + 1 : 0) {
    if (performance.now() > end) throw new Error(`the colours never came to ${scheme}`);
    await frame();
  }
}"""
FIND_VIOLATIONS = "async () => (await axe.run({preload: false})).violations.map(v => [v.id, v.nodes.map(n => n.html)])"


@pytest.fixture
def axe(console: Console) -> Callable[..., None]:
    """Fails on any violation axe-core finds, in light and in dark."""
    source = AXE.read_text(encoding="utf-8")

    def check_page(page: Page, schemes: Sequence[str] = ("light", "dark")) -> None:
        page.wait_for_load_state()
        drain_console(page)  # the page's own complaints come first
        console.is_measuring = True
        page.emulate_media(
            reduced_motion="reduce"
        )  # before the colours change, so that none of them takes its time
        for scheme in schemes:
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.evaluate(WAIT_FOR_COLOURS, scheme)
            page.evaluate(source)
            violations = page.evaluate(FIND_VIOLATIONS)
            if violations:  # a part that came in while it was looked at; a real one is found again
                page.evaluate(WAIT_FOR_COLOURS, scheme)
                violations = page.evaluate(FIND_VIOLATIONS)
            assert not violations, (page.url, scheme, violations)
        page.emulate_media(color_scheme="light")
        drain_console(page)
        console.is_measuring = False

    return check_page


def drain_console(page: Page) -> None:
    """Wait until all that the page has told its console so far has been heard here."""
    marker = f"so far {time.monotonic_ns()}"

    def is_marker(message: ConsoleMessage) -> bool:
        return message.text == marker

    with page.expect_console_message(is_marker):
        page.evaluate("said => console.debug(said)", marker)


def open_as_user(page: Page, user: HttpUser, path: str = "/d/today") -> None:
    """Take the session of a writer into the browser, and go to a page of theirs if one is named."""
    jar = user.http.cookies.jar
    page.context.add_cookies(
        [{"name": c.name, "value": c.value or "", "url": user.url} for c in jar]
    )
    if path:
        page.goto(user.url + path)


def sign_in(page: Page, name: str, passphrase: str) -> None:
    """Sign in as a person does, on the page that asks for it, and come to a day."""
    page.locator("#name").fill(name)
    page.locator("#passphrase").fill(passphrase)
    page.locator("main button").last.click()
    page.wait_for_url("**/d/**")


def open_more_menu(scope: Page | Locator) -> Locator:
    """Open what else can be done with an entry, the first one in that place, and return it."""
    actions = scope.locator(".actions").first
    link, details = (
        actions.locator(":scope > a[href$='/more']"),
        actions.locator(":scope > details.more"),
    )
    if link.count():
        link.click()
        expect(details).to_be_visible()
    if details.get_attribute("open") is None:
        details.locator(":scope > summary").click()
    return details


def requested_group(page: Page, code: str) -> str:
    """The group of the recovery code that the page asks for."""
    label = page.locator("label[for=part]").inner_text()
    ordinals = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"]
    groups = [group for group in re.split(r"[^0-9A-Za-z]+", code) if group]
    return next(groups[place] for place, word in enumerate(ordinals) if word in label)
