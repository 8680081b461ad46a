"""An installed Llamora: a worker that keeps the shell, and a calm page when the server is away."""

import json
import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import open_as_user
from tests.conftest import HttpUser, Server

WITHOUT_MODELS = {"LLAMORA_LLM__ENABLED": "false", "LLAMORA_EMBEDDING__ENABLED": "false"}
LONG = 60_000  # milliseconds, for a machine that is busy
KEPT = """async () => {
  const found = [];
  for (const name of await caches.keys()) {
    const cache = await caches.open(name);
    for (const request of await cache.keys()) {
      const answer = await cache.match(request);
      const text = /text|svg|javascript/.test(answer.headers.get("Content-Type")) ? await answer.text() : "";
      found.push([new URL(request.url).pathname, answer.headers.get("Cache-Control"), text]);
    }
  }
  return found;
}"""


@pytest.fixture(params=["dev", "prod"])
def server(request: pytest.FixtureRequest, serve: Callable[..., Server]) -> Server:
    return serve(mode=request.param, env=WITHOUT_MODELS).start()


@pytest.fixture
def page(chromium: Browser, server: Server) -> Iterator[Page]:
    """Somebody who is signed in, at a browser that may complain of a server that is not there."""
    writer = HttpUser(server.url).register()
    writer.write("A heron in the reeds.")
    context = chromium.new_context(color_scheme="light")
    page = context.new_page()
    open_as_user(page, writer)
    expect(page.get_by_text("A heron in the reeds.")).to_be_visible()
    controlled(page)
    yield page
    context.close()


def controlled(page: Page) -> None:
    """Wait until the worker is at work and answers for this page."""
    end = time.monotonic() + LONG / 1000
    while not page.evaluate("navigator.serviceWorker.controller !== null"):
        assert time.monotonic() < end, "no service worker"
        page.wait_for_timeout(50)


def test_with_the_server_away_a_page_says_so(page: Page, server: Server) -> None:
    server.stop()
    page.goto(server.url + "/d/today")
    expect(page.get_by_role("heading", name="Llamora is away")).to_be_visible(timeout=LONG)
    expect(page.get_by_text("heron")).to_have_count(0)
    family = page.locator("h1").evaluate("heading => getComputedStyle(heading).fontFamily")
    assert family.startswith("Literata"), "the page is set as all others are"
    assert page.evaluate("document.fonts.check('20px Literata')")
    server.start()
    page.get_by_role("link", name="Try again").click()
    # The server was started anew, so that everybody is signed out.
    expect(page).to_have_url(server.url + "/sign-in?next=/d/today", timeout=LONG)


def test_what_is_kept_on_the_device_is_the_shell(page: Page, server: Server) -> None:
    for path in ("/you", "/search", "/d/today", "/help"):
        page.goto(server.url + path)
    kept = page.evaluate(KEPT)
    paths = sorted(path for path, _, _ in kept)
    assert "/offline" in paths
    assert all(path == "/offline" or path.startswith("/static/") for path in paths), paths
    assert not [path for path, control, _ in kept if "no-store" in (control or "")]
    everything = json.dumps(kept)
    for private in ("heron", "Alice", 'name=\\"csrf\\"', "/lock"):
        assert private not in everything


def test_a_browser_would_offer_to_install_it(page: Page, server: Server) -> None:
    session = page.context.new_cdp_session(page)
    told = session.send("Page.getAppManifest")
    assert told["errors"] == []
    manifest = json.loads(told["data"])
    assert (manifest["name"], manifest["start_url"], manifest["display"]) == (
        "Llamora",
        "/",
        "standalone",
    )
    sizes: dict[str, str] = {}
    for icon in manifest["icons"]:
        if icon["type"] == "image/png":
            made = page.evaluate(
                "async src => { const image = new Image(); image.src = src; await image.decode();"
                " return `${image.naturalWidth}x${image.naturalHeight}` }",
                f"/static/{icon['src']}",
            )
            sizes[icon["src"]] = made
            assert made == icon["sizes"]
    assert set(sizes.values()) == {"192x192", "512x512"}
    failures = session.send("Page.getInstallabilityErrors")["installabilityErrors"]
    assert [each["errorId"] for each in failures if each["errorId"] != "in-incognito"] == []
