"""Starts a Firefox as it is installed, for Playwright, whose protocol for it is the standard WebDriver BiDi.

`python -m tests.browser.firefox FIREFOX [its options]` stands between the two: Playwright asks for the emulation of
media, which this Firefox may not know yet, and gives up when it is refused. So what Firefox does not know counts as
done here. What a test wants emulated is in Firefox's own preferences (tests/browser/conftest.py).
"""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

LISTENS = re.compile(rb"(WebDriver BiDi listening on )(ws://\S+)")


def find() -> Path | None:
    """A Firefox that starts, or None."""
    for name in ("firefox-esr", "firefox"):
        path = shutil.which(name)
        if (
            path
            and b"Firefox"
            in subprocess.run([path, "--version"], capture_output=True, check=False).stdout
        ):
            return Path(path)
    return None


async def _relay(playwright: ServerConnection, address: str) -> None:
    assert playwright.request is not None
    async with connect(
        address + playwright.request.path, max_size=None, ping_interval=None
    ) as firefox:
        await asyncio.gather(
            _asked(playwright, firefox), _told(firefox, playwright), return_exceptions=True
        )


async def _asked(playwright: ServerConnection, firefox: ClientConnection) -> None:
    async for message in playwright:
        await firefox.send(message)
    await firefox.close()


async def _told(firefox: ClientConnection, playwright: ServerConnection) -> None:
    async for message in firefox:
        said = json.loads(message)
        if said.get("error") == "unknown command":
            said = {"type": "success", "id": said["id"], "result": {}}
        await playwright.send(json.dumps(said))
    await playwright.close()


async def _main(command: list[str]) -> int:
    firefox = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.PIPE, limit=1 << 20
    )
    assert firefox.stderr is not None
    while line := await firefox.stderr.readline():
        if found := LISTENS.search(line):
            address = found[2].decode()
            break
        sys.stderr.buffer.write(line)
    else:
        return await firefox.wait()
    async with serve(
        lambda client: _relay(client, address), "127.0.0.1", 0, max_size=None, ping_interval=None
    ) as here:
        port = next(iter(here.sockets)).getsockname()[1]
        sys.stderr.write(f"WebDriver BiDi listening on ws://127.0.0.1:{port}\n")
        sys.stderr.flush()
        while line := await firefox.stderr.readline():
            sys.stderr.buffer.write(line)
        return await firefox.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(sys.argv[1:])))
