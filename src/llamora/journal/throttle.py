"""Slow down guessing of secrets."""

import time

from llamora.journal.credentials import AccountError


class TooManyAttempts(AccountError):
    """Too many attempts; `params` holds the `seconds` until the next one is accepted."""

    status = 429


class Throttle:
    """Slow down guessing of secrets.

    From attempt FREE_ATTEMPTS on, each further one doubles the wait, up to MAX_WAIT_SECONDS.
    """

    FREE_ATTEMPTS = 5
    MAX_WAIT_SECONDS = 300
    MAX_SUBJECTS = 10_000

    def __init__(self) -> None:
        self._failures: dict[str, tuple[int, float]] = {}

    def record_attempt(self, *subjects: str) -> None:
        """Count an attempt against each subject (a name, an address).

        Call it before the secret is checked, so that concurrent guesses are not all let through.
        Raises TooManyAttempts, and counts nothing, while one of the subjects has to wait.
        """
        now = time.monotonic()
        wait = max(
            (self._failures.get(subject, (0, 0.0))[1] - now for subject in subjects), default=0.0
        )
        if wait > 0:
            raise TooManyAttempts("too_many_attempts", seconds=int(wait) + 1)
        if len(self._failures) > self.MAX_SUBJECTS:
            self._failures = {key: value for key, value in self._failures.items() if value[1] > now}
        for subject in subjects:
            count = self._failures.get(subject, (0, 0.0))[0] + 1
            wait = (
                min(2 ** (count - self.FREE_ATTEMPTS), self.MAX_WAIT_SECONDS)
                if count >= self.FREE_ATTEMPTS
                else 0
            )
            self._failures[subject] = (count, now + wait)

    def clear_attempts(self, *subjects: str) -> None:
        """Forget the attempts of these subjects."""
        for subject in subjects:
            self._failures.pop(subject, None)
