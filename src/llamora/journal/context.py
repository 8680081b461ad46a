"""The user who asks, as use cases know them."""

from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from llamora.dates import day_of, parse_zone, utc_now
from llamora.journal.profile import Profile
from llamora.persistence.connection import NotFound
from llamora.vault.keys import Keyring


@dataclass(slots=True, frozen=True)
class UserContext:
    """A user, their settings, and the day it is for them.

    `today` is the date in the zone of their profile, by when their days end; `language` is a code such as `de`.
    """

    keys: Keyring
    profile: Profile
    today: date
    language: str = "en"

    @classmethod
    def now(cls, keys: Keyring, profile: Profile, language: str = "en") -> "UserContext":
        today = day_of(utc_now(), parse_zone(profile.zone), profile.day_ends_at)
        return cls(keys, profile, today, language)

    @property
    def id(self) -> bytes:
        return self.keys.user_id

    @property
    def zone(self) -> ZoneInfo:
        return parse_zone(self.profile.zone)

    def day_of(self, instant: datetime) -> date:
        """Return the user's day at an aware instant."""
        return day_of(instant, self.zone, self.profile.day_ends_at)

    @property
    def endpoint(self) -> str:
        """Return the name of the model server that the user chose; "" is the default one."""
        return self.profile.endpoint

    def require_replies(self) -> None:
        """Raise NotFound if the user has turned the model off."""
        if not self.profile.replies:
            raise NotFound("page_not_found")
