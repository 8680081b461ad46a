"""Define the user's settings, which are sealed with the account."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from llamora.dates import parse_zone
from llamora.persistence.local_db import LocalDB
from llamora.vault.keys import Keyring

Theme = Literal["system", "light", "dark", "contrast"]
THEMES: tuple[Theme, ...] = ("system", "light", "dark", "contrast")
TEXT_SIZES = (
    88,
    100,
    115,
    132,
    152,
)  # per cent of the typeface's base size; each step adds about an eighth
LOCK_MINUTES = (5, 15, 60, 0)
MAX_ZONE_CHARACTERS = 64  # as much as `dates.parse_zone` reads
DAY_ENDS = (0, 1, 2, 3, 4, 5)  # hours after midnight
WEEK_STARTS = (0, 5, 6)  # Monday, Saturday, Sunday: the three that calendars start with


@dataclass(slots=True, frozen=True)
class Profile:
    """The settings of a user, sealed with the account.

    `zone` is an IANA name; where this machine does not know the one that was chosen, that one is
    `unknown_zone`, and `zone` UTC. `dismissed_zone` is a browser's zone that the user does not
    want. A day lasts until `day_ends_at` hours after midnight. `revision` is 0 if they were never
    saved. `replies` enables the model altogether, `openings` a line from recent days on a new one,
    `searches` the search history. `endpoint` names one of the configured model servers; "" is the
    default one. `language` is a code such as `de`; "" follows the browser. `text_size` is in per
    cent. `week_start` is 0 for Monday. `enter_keeps`: Enter saves the entry, and Shift+Enter starts
    a new line. `letter_keys` enables single-letter shortcuts (WCAG 2.1.4 requires a way to turn
    them off). `lock_after` is in minutes without activity, 0 for the server's own limit. `damaged`:
    the stored settings could not be read, so these are the defaults. `summed`: there is a sum over
    the user's records.
    """

    zone: str = "UTC"
    revision: int = 0
    unknown_zone: str = ""
    dismissed_zone: str = ""
    day_ends_at: int = 0
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
    summed: bool = False
    damaged: bool = False


def parse_profile(record: bytes, revision: int) -> Profile:
    """Return the settings of a stored record, which is empty if it could not be read.

    Missing and invalid values take their defaults. Raises ValueError for a record that is not JSON.
    """
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
        ("day_ends_at", DAY_ENDS),
    ):
        if values.get(name) not in allowed:
            values.pop(name, None)
    chosen = values.get("zone", "")
    zone = zone_or_utc(chosen)
    values.update(zone=zone, unknown_zone="" if zone == chosen else chosen, revision=revision)
    return Profile(**values)


async def load_profile(db: LocalDB, keys: Keyring) -> Profile:
    """Return the user's settings; the defaults if none are stored. Raises StorageError."""
    stored = await db.profiles.get(keys)
    return parse_profile(*stored) if stored else Profile()


def serialize_profile(profile: Profile) -> bytes:
    """Return the record of the settings, to be sealed."""
    fields = asdict(profile)
    fields["zone"] = fields.pop("unknown_zone") or profile.zone  # another machine may know it
    del fields["damaged"]  # saved settings are intact
    del fields["revision"]  # stored in the table, and bound to the seal
    return json.dumps(fields).encode()


def zone_or_utc(name: str) -> str:
    """Return `name` if this machine knows that zone, else "UTC"."""
    try:
        parse_zone(name)
    except ValueError:
        return "UTC"
    return name
