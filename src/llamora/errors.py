"""Errors that are shown to the user: codes and numbers, no prose."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True, frozen=True)
class Notice:
    """A code of `llamora.messages` with its parameters, shown or stored without being raised."""

    code: str
    params: Mapping[str, str | int] = field(default_factory=dict[str, str | int])


class Problem(Exception):
    """An error that is shown as the sentence of a code, filled with its parameters.

    `status` is the HTTP status at the edge. `str()` is the code alone, so that neither a log nor a
    traceback ever holds what a user wrote.
    """

    status = 422

    def __init__(self, code: str, /, **params: str | int) -> None:
        super().__init__(code)
        self.code = code
        self.params = params

    @property
    def retry_after(self) -> dict[str, str]:
        """Return the header that tells after how many seconds to try again, if there are any."""
        return {"Retry-After": str(self.params["seconds"])} if "seconds" in self.params else {}

    @property
    def notice(self) -> Notice:
        """Return the code and parameters without the exception, for a record."""
        return Notice(self.code, self.params)
