"""What a person must be told when something cannot be done: codes and numbers, no prose."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True, frozen=True)
class Notice:
    """A code of `llamora.messages` and what fills its blanks, for what is shown or stored without being raised."""

    code: str
    params: Mapping[str, str | int] = field(default_factory=dict[str, str | int])


class Problem(Exception):
    """Report a code of `llamora.messages` with what fills its blanks.

    `status` is the HTTP status at the edge. `str()` is the code alone, so that neither a log nor a traceback
    ever holds what a person wrote.
    """

    status = 422

    def __init__(self, code: str, /, **params: str | int) -> None:
        super().__init__(code)
        self.code = code
        self.params = params

    @property
    def notice(self) -> Notice:
        """The same without the exception, for a record."""
        return Notice(self.code, self.params)
