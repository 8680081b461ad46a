"""Recovery codes: 130 random bits as people can write them down, with two check symbols."""

import hmac
import secrets
import unicodedata

from llamora.vault.envelope import VaultError


class WrongSecret(VaultError):
    """The passphrase or recovery code does not open this slot."""


class RecoveryCodeError(WrongSecret):
    """Not a recovery code: wrong length, foreign character, or check characters that do not hold.

    `str()` is a code of `llamora.messages`.
    """


_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CODE_SYMBOLS = 26
_CODE_BITS = 130
_GROUP = 4
_FORGIVEN = str.maketrans({"I": "1", "L": "1", "O": "0"})


def _gf32_double(value: int) -> int:
    """Multiply by alpha in GF(2^5) with x^5 + x^2 + 1."""
    value <<= 1
    return value ^ 0b100101 if value & 32 else value


def _check_symbols(symbols: list[int]) -> list[int]:
    """Return the remainder of the code, a polynomial over GF(32), by (x + 1)(x + alpha).

    A Reed-Solomon code of distance 3 and length 28 <= 31: every one or two wrong symbols show, and
    so does every exchange of two symbols, adjacent or not.
    """
    first = second = 0
    for symbol in symbols:
        feedback = symbol ^ first
        doubled = _gf32_double(feedback)
        first, second = second ^ feedback ^ doubled, doubled
    return [first, second]


def new_recovery_code() -> str:
    """Return 130 random bits as 26 Crockford base32 and 2 check symbols, in 7 groups of 4."""
    return _format_code(secrets.randbits(_CODE_BITS))


def _format_code(value: int) -> str:
    symbols = [value >> 5 * place & 31 for place in reversed(range(_CODE_SYMBOLS))]
    text = "".join(_CROCKFORD[symbol] for symbol in symbols + _check_symbols(symbols))
    return "-".join(text[start : start + _GROUP] for start in range(0, len(text), _GROUP))


def _compact(typed: str) -> str:
    """Return only the symbols of what was typed, in upper case, I, L and O read as 1, 1 and 0."""
    return "".join(
        character
        for character in unicodedata.normalize("NFKC", typed[:1000]).upper()
        # Any kind of space, line end, dash or invisible mark may stand between the symbols.
        if not (character.isspace() or unicodedata.category(character) in {"Pd", "Cf", "Cc"})
        and character not in "_.\u2212"
    ).translate(_FORGIVEN)


def parse_code(text: str) -> int:
    """Return the 130 bits of a code as typed.

    Raise :class:`RecoveryCodeError`, which quotes nothing.
    """
    compact = _compact(text)
    if len(compact) != _CODE_SYMBOLS + 2:
        raise RecoveryCodeError("recovery_code_length")
    symbols = [_CROCKFORD.find(character) for character in compact]
    if -1 in symbols:
        raise RecoveryCodeError("recovery_code_letters")
    if _check_symbols(symbols[:_CODE_SYMBOLS]) != symbols[_CODE_SYMBOLS:]:
        raise RecoveryCodeError("recovery_code_mistyped")
    value = 0
    for symbol in symbols[:_CODE_SYMBOLS]:
        value = value << 5 | symbol
    return value


def check_recovery_code(text: str) -> bool:
    """Return True if a text reads as a recovery code.

    Case, I, L, O, spaces and dashes are forgiven, wrong check symbols are not.
    """
    try:
        parse_code(text)
    except RecoveryCodeError:
        return False
    return True


def recovery_groups(code: str) -> list[str]:
    """Return the seven groups of four of a code, in upper case, however it was typed.

    Raise :class:`RecoveryCodeError`.
    """
    return _format_code(parse_code(code)).split("-")


def same_group(group: str, typed: str) -> bool:
    """Return True if `typed` is this group of a recovery code, as forgiving as the whole code."""
    return hmac.compare_digest(_compact(typed).encode("utf-8", "surrogatepass"), group.encode())
