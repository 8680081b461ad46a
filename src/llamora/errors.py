"""What a person must be told when something cannot be done: codes and numbers, no prose."""


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
