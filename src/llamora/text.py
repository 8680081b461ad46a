"""Normal forms of text, in time that grows with its length and not with the square of it."""

import re
import unicodedata
from typing import Literal

MARKS_IN_A_ROW = 30  # Stream-Safe Text Format, Unicode Standard Annex #15, section 13
# Neither letter, digit, space nor ASCII: wherever more than that many marks stand in a row, this finds them.
_RUN = re.compile(rf"[^\w\s\x00-\x7f]{{{MARKS_IN_A_ROW + 1},}}")


def normal_form(form: Literal["NFC", "NFKC"], text: str) -> str:
    """`text` in a Unicode normal form; combining marks beyond MARKS_IN_A_ROW on one letter are dropped.

    `unicodedata.normalize` sorts the marks of a letter in quadratic time and keeps the interpreter's lock meanwhile:
    a hundred thousand of them would hold up everybody for minutes.
    """
    return unicodedata.normalize(form, text if text.isascii() else _RUN.sub(_thinned, text))


def _thinned(run: "re.Match[str]") -> str:
    kept: list[str] = []
    marks = 0
    for letter in run[0]:
        marks = marks + 1 if unicodedata.combining(letter) else 0
        if marks <= MARKS_IN_A_ROW:
            kept.append(letter)
    return "".join(kept)
