"""Emoji by their names, in the language of the page."""

import re

from tests.app.conftest import RunningApp, Visitor


async def offered(visitor: Visitor, typed: str) -> dict[str, str]:
    """The names that are offered and their emoji."""
    text = (await visitor.post("/emoji", {"q": typed}, fragment=True)).text
    return {
        name: sign for sign, name in re.findall(r'<option value="([^"]+)">([^<]+)</option>', text)
    }


async def test_the_shortest_name_that_begins_so_comes_first(app: RunningApp) -> None:
    alice = await app.visitor()
    found = await offered(alice, "hear")
    assert next(iter(found.items())) == ("heart", "❤️")
    assert len(found) == 6
    assert await offered(alice, "COFFEE") == {"coffee": "☕"}
    assert "red heart" in await offered(alice, "red_h")
    assert await offered(alice, "") == await offered(alice, "nothing like it") == {}
    assert not any(
        "\U0001f3fb" <= letter <= "\U0001f3ff"
        for sign in (await offered(alice, "wave")).values()
        for letter in sign
    )


async def test_german_names_beside_the_english_ones(app: RunningApp) -> None:
    alice = await app.visitor()
    await alice.post("/you/settings", {"language": "de", "was-language": ""})
    assert (await offered(alice, "rotes"))["rotes herz"] == "❤️"
    assert "herz" in " ".join(await offered(alice, "herz"))
    assert (await offered(alice, "heart"))["heart"] == "❤️"
