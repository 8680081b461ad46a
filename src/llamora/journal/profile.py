"""What a writer may set, sealed with the account."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from llamora.dates import parse_zone

Theme = Literal["system", "light", "dark", "contrast"]
THEMES: tuple[Theme, ...] = ("system", "light", "dark", "contrast")
TEXT_SIZES = (
    88,
    100,
    115,
    132,
    152,
)  # per cent of the face's own size; each step is about an eighth more
LOCK_MINUTES = (5, 15, 60, 0)
WEEK_STARTS = (
    0,
    5,
    6,
)  # Monday, Saturday, Sunday: the three that calendars of the world begin with


@dataclass(slots=True, frozen=True)
class Profile:
    """The writer's own settings, sealed with the account. `zone` is an IANA name; `revision` 0: never saved.

    `replies`: the model is there at all. `openings`: a new day opens with a line from the last ones. `searches`:
    what was searched for is remembered. `endpoint` names the one of the settings' model servers that answers; "" is
    the default. `language` is a code such as `de`; "" is what the browser asks for. `text_size` is in per cent.
    `week_start` counts from Monday, 0. `enter_keeps`: the Enter key keeps the entry, and Shift+Enter begins a line.
    `lock_after`: minutes without a sign of the writer after which a session ends, 0 for as long as the server allows.
    `damaged`: the stored settings could not be read, so these are the defaults. `letter_keys`: single letters do
    something (WCAG 2.1.4 asks that they can be turned off).
    """

    zone: str = "UTC"
    revision: int = 0
    replies: bool = True
    openings: bool = False
    searches: bool = True
    endpoint: str = ""
    language: str = ""
    theme: Theme = "system"
    text_size: int = 100
    twelve_hours: bool = False
    week_start: int = 0
    enter_keeps: bool = False
    letter_keys: bool = True
    suggestions: bool = False
    lock_after: int = 60
    damaged: bool = False


def parse_profile(record: bytes, revision: int) -> Profile:
    """The settings of a stored record; what is missing in it, or not of this version, is as it was never set."""
    stored = cast("dict[str, Any]", json.loads(record or b"{}"))
    stored["damaged"] = not record
    defaults = asdict(Profile())
    values: dict[str, Any] = {
        name: value
        for name, value in stored.items()
        if name in defaults and type(value) is type(defaults[name])
    }
    for name, allowed in (
        ("theme", THEMES),
        ("text_size", TEXT_SIZES),
        ("week_start", WEEK_STARTS),
        ("lock_after", LOCK_MINUTES),
    ):
        if values.get(name) not in allowed:
            values.pop(name, None)
    values.update(zone=zone_or_utc(values.get("zone", "")), revision=revision)
    return Profile(**values)


def serialize_profile(profile: Profile) -> bytes:
    """The record of settings, to be sealed."""
    fields = asdict(profile)
    del fields["damaged"]  # what is stored anew is whole
    del fields["revision"]  # it is in the table, and in what the seal is bound to
    return json.dumps(fields).encode()


def zone_or_utc(name: str) -> str:
    """`name` when it is a zone this machine knows, else UTC: a browser may send anything."""
    try:
        parse_zone(name)
    except ValueError:
        return "UTC"
    return name
