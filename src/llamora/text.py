"""Normal forms of text, its language and everyday words, tag names, and places of errors.

Everything here takes time proportional to the length of a text, never to its square.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Literal

Role = Literal["me", "reply"]
"""The author of a text: the user, or the model."""

MAX_COMBINING_MARKS = 30  # Stream-Safe Text Format, Unicode Standard Annex #15, section 13
# Neither letter, digit nor space, and beyond Latin: this finds every run of more than that many
# marks.
# The range comes first: it settles most letters at half the cost of asking for a letter's class.
_MARK_RUN = re.compile(rf"[^\x00-\u02ff\w\s]{{{MAX_COMBINING_MARKS + 1},}}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def replace_surrogates(text: str) -> str:
    """Return text with U+FFFD for each lone surrogate, which is no Unicode text."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def normalize(text: str) -> str:
    """Return text as it is indexed: NFC, without control characters or lone surrogates."""
    clean = text.encode("utf-8", "replace").decode()
    return normal_form("NFC", _CONTROL.sub(" ", clean))


def normal_form(form: Literal["NFC", "NFKC", "NFKD"], text: str) -> str:
    """Return `text` in a Unicode normal form, without an excess of combining marks.

    Marks beyond MAX_COMBINING_MARKS on one letter are dropped: `unicodedata.normalize` sorts the
    marks of a letter in quadratic time with the interpreter's lock held, and a hundred thousand of
    them would hold up everybody for minutes.
    """
    return unicodedata.normalize(form, text if text.isascii() else _MARK_RUN.sub(_trim_marks, text))


def _trim_marks(run: "re.Match[str]") -> str:
    letters: list[str] = []
    marks = 0
    for letter in run[0]:
        marks = marks + 1 if unicodedata.combining(letter) else 0
        if marks <= MAX_COMBINING_MARKS:
            letters.append(letter)
    return "".join(letters)


# -- Markdown --------------------------------------------------------------------------------------

_FENCE = re.compile(r"^\s*(?:```|~~~).*$", re.MULTILINE)
_LINE_START = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]+|>[ \t]?|[-*+][ \t]+(?:\[[ xX]\][ \t]+)?|\d{1,9}[.)][ \t]+)",
    re.MULTILINE,
)
_RULE = re.compile(r"^[ \t]*(?:[-*_][ \t]*){3,}$", re.MULTILINE)
_LINK = re.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*(?:[ \t]+\"[^\"\n]*\")?\)")
_STRONG = re.compile(r"(\*{1,3}|~~)(?=\S)([^*~\n]+?)(?<=\S)\1")
_UNDERLINED = re.compile(r"(?<!\w)(_{1,3})(?=\S)([^_\n]+?)(?<=\S)\1(?!\w)")
_CODE = re.compile(r"`+([^`\n]+)`+")
# Applied in this order. The signs that a pattern needs are looked for first, which is far faster.
_INLINE_MARKS = (
    ("[", _LINK, r"\1"),
    ("`", _CODE, r"\1"),
    ("*~", _STRONG, r"\2"),
    ("_", _UNDERLINED, r"\2"),
)


def strip_markdown(text: str) -> str:
    """Return the text of simple Markdown without its marks; what is not clearly a mark stays."""
    stripped = _RULE.sub("", _FENCE.sub("", normalize(text)))
    stripped = _LINE_START.sub("", _LINE_START.sub("", stripped))
    for signs, pattern, replacement in _INLINE_MARKS:
        if any(sign in stripped for sign in signs):
            stripped = pattern.sub(replacement, stripped)
    return stripped


# -- languages -------------------------------------------------------------------------------------

_GERMAN_WORDS = frozenset(
    "und ich nicht der die das ist mit ein eine war habe hat auf zu den dem es im am wir mir mich "
    "sie er noch auch wieder heute von für aber wie bin".split()
)
_ENGLISH_WORDS = frozenset(
    "and i not the is with a was have had on to it in at we me my she he of again today from for but how am be".split()
)


def detect_language(text: str) -> Literal["en", "de"]:
    """Return "de" where more of its small words are German, else "en".

    Only these two are told apart.
    """
    words = re.findall(r"[^\W\d_]+", text.lower())
    is_german = sum(word in _GERMAN_WORDS for word in words) > sum(
        word in _ENGLISH_WORDS for word in words
    )
    return "de" if is_german else "en"


# -- everyday words --------------------------------------------------------------------------------

# English function words and question words, and what an apostrophe leaves behind: they shape a
# question and are not what it is about. A question of nothing else is searched as it stands.
STOP_WORDS = frozenset(
    "a about am an and any are as at be been being but by can could d did do does doing for from "
    "had has have having he her hers him his how i if in into is it its ll m me mine my of on or "
    "our ours re s shall she should so some t than that the their theirs them then there these "
    "they this those to us ve was we were what when where which who whom whose why will with "
    "would you your yours".split()
)
# English and German words of every diary, which do not tell one entry from another.
COMMON_WORDS = frozenset(
    "about after again all almost also always another any anything away back because been before "
    "being better both came come comes could day days did done down each early else enough even "
    "evening every everything few first found full gave get give given gone good got great had "
    "half hand hard having here himself home hour hours however into just keep kept knew know "
    "known last late least left less let like little long look looked made make makes making many "
    "may maybe mind more morning most much must myself near never new next night nor not nothing "
    "now off often once one only other others out over own part people perhaps place put quite "
    "rather really said same saw say says see seem seems sent set several since small something "
    "sometimes soon still such sure take taken tell thence thing things think this though thought "
    "three through thus time times today together told tomorrow too took two under until upon "
    "very want wanted way week weeks well went whole within without word words work year years "
    "yesterday yet aber alle alles also auch auf aus bei bin bis bist dann das dass dem den der "
    "des die dies diese doch dort durch ein eine einem einen einer etwas euch für ganz gegen "
    "gehen habe haben hat hatte heute hier ich ihm ihn ihr immer ist jetzt kann kein keine können "
    "mal man mehr mein meine mich mir mit morgen muss nach nicht nichts noch nun nur oder schon "
    "sehr sein seine sich sie sind über und uns unter viel vom von vor war waren was weil wenn "
    "wie wieder wir wird wurde zum zur".split()
)
# Words of asking and remembering: "have I really never written about it before" is about "it".
QUESTION_WORDS = frozenset(
    "again already always anything before ever happened last mention mentioned much never often "
    "once really remember said say something tell think thought told too very wrote write written "
    "yet".split()
)

# -- tag names -------------------------------------------------------------------------------------

MAX_TAG_LENGTH = 64  # characters

# One emoji as Unicode Technical Standard #51 composes it: a flag, or pictographs with their skin
# tones, variation selectors, tags and keycaps, joined into one by U+200D. The list of the emoji
# package says which of these there are.
_PICTOGRAPH = r"(?:[\u00a9\u00ae\u203c-\u3299\U0001f000-\U0001faff])"
_PICTOGRAPH_SEQUENCE = (
    rf"{_PICTOGRAPH}[\ufe0e\ufe0f]?[\U0001f3fb-\U0001f3ff]?[\U000e0020-\U000e007f]*"
)
_EMOJI = (
    r"(?:[\U0001f1e6-\U0001f1ff]{2}|[0-9#*]\ufe0f?\u20e3|"
    rf"{_PICTOGRAPH_SEQUENCE}(?:\u200d{_PICTOGRAPH_SEQUENCE})*)"
)
_SINGLE_EMOJI = re.compile(_EMOJI)
_JOINERS = "\u200c\u200d"
# Invisible characters, which make no other name: Default_Ignorable_Code_Point of the Unicode
# character database (DerivedCoreProperties.txt), as NFKC_Casefold of the Unicode Standard, section
# 3.13, leaves it out.
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_APOSTROPHES = re.compile("[\u2018\u2019\u02bc]")
_SEPARATORS = re.compile(r"[\s_\-\u2010-\u2015]+")
# The text after a "#" at which no word, URL or further "#" ends; `_leading_word` cuts the name.
# Kana and Han are written without spaces, so a tag may follow their letters.
_TAG_IN_TEXT = re.compile(
    r"(?:(?<![\w#&/\u20e3])|(?<=[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]))"
    rf"#(?:({_EMOJI})|([^\W_]\S*))"
)
# A "#" in these is no tag: code, what is escaped, URLs.
_CODE_OR_ADDRESS = re.compile(
    r"^(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^(?P=fence)[`~]*[ \t]*$|\Z)"
    r"|\\[#`]|<[^<>\s]+>|\]\([^()\s]*\)|(?<!\w)\w{1,20}://\S+|www\.\S+",
    re.DOTALL | re.MULTILINE,
)
_OUTER_SIGNS = "-_,;:.!?/\"'()[]{}<>"
_NAME_SIGNS = re.compile(r"(?:\+{1,2}|#)(?![\w+#])")
_HEX_COLOUR = re.compile(r"[0-9a-fA-F]{3,4}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8}")
_BACKTICKS = re.compile("`+")


def is_emoji(name: str) -> bool:
    """Return True if a name is one emoji, its whole sequence and nothing else."""
    if _SINGLE_EMOJI.fullmatch(name) is None:
        return False
    import emoji  # imported here because its list takes a while to read

    return emoji.is_emoji(name) or emoji.is_emoji(name.replace("\ufe0f", "").replace("\ufe0e", ""))


def tag_key(name: str) -> str:
    """Return the key that every spelling of a tag's name shares.

    NFKC and case-folded, without invisible characters; blanks, underscores and dashes are one
    hyphen. "" when nothing in it makes a name.
    """
    if is_emoji(name):
        return name.replace("\ufe0f", "").replace("\ufe0e", "")
    folded = normal_form("NFKC", normal_form("NFKC", _IGNORABLE.sub("", name)).casefold())
    folded = normal_form("NFKC", _IGNORABLE.sub("", folded))
    return _SEPARATORS.sub("-", _APOSTROPHES.sub("'", folded)).strip("-")


def tag_name(raw_name: str) -> str:
    """Return the shown name of a tag from what was typed: without "#", blanks single.

    Return "" when it is no name: without letter or digit, with a control character in it, longer
    than MAX_TAG_LENGTH, or more than one emoji.
    """
    raw_name = " ".join(raw_name.split()) if len(raw_name) <= 4 * MAX_TAG_LENGTH else ""
    for name in (raw_name, raw_name.removeprefix("#")):
        if is_emoji(name):
            return name
    name = raw_name.removeprefix("#").lstrip(f"{_OUTER_SIGNS}#").rstrip(_OUTER_SIGNS)
    bare = name.rstrip("#")
    name = name if len(name) - len(bare) == 1 and bare[-1:].isalpha() else bare  # "C#"
    if (
        not name
        or len(name) > MAX_TAG_LENGTH
        or any(unicodedata.category(c)[0] == "C" for c in name if c not in _JOINERS)
    ):
        return ""
    return name if any(c.isalnum() for c in _IGNORABLE.sub("", name)) else ""


def find_tags(text: str) -> list[str]:
    """Return the names of the tags in a text (`#like-this`, `#🎻`), each once, in order.

    Code, URLs and what follows a backslash are left out; numbers ("#1") and colours ("#fff") are no tags.
    """
    names: dict[str, str] = {}
    for _, _, name in (
        tag_spans(_strip_code_spans(_CODE_OR_ADDRESS.sub(" ", text))) if "#" in text else ()
    ):
        names.setdefault(tag_key(name), name)
    return list(names.values())


def tag_spans(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, name) of each tag in a text without code or URLs, "#" included."""
    for match in _TAG_IN_TEXT.finditer(text):
        word = match[1] if match[1] and is_emoji(match[1]) else _leading_word(match[2] or "")
        name = word if match[1] else tag_name(word)
        if name and word and (match[1] or not _is_number_or_colour(name)):
            yield match.start(), match.start() + 1 + len(word), name


def _is_number_or_colour(name: str) -> bool:
    if name.replace("/", "").isnumeric():
        return True
    letters = name.lower()
    # "#cafe" and "#bed" are words: letters alone with a vowel among them, and not one letter over and over.
    is_word = letters.isalpha() and not {"a", "e"}.isdisjoint(letters) and len(set(letters)) > 1
    return _HEX_COLOUR.fullmatch(name) is not None and not is_word


def _strip_code_spans(text: str) -> str:
    """Remove the code spans of a text: what stands between two runs of as many backticks."""
    runs = [(match.start(), match.end()) for match in _BACKTICKS.finditer(text)]
    closing: dict[int, int] = {}  # by length: the nearest run after the present one
    pairs: dict[int, int] = {}
    for index in range(len(runs) - 1, -1, -1):
        start, end = runs[index]
        if end - start in closing:
            pairs[index] = closing[end - start]
        closing[end - start] = index
    parts: list[str] = []
    index = offset = 0
    while index < len(runs):
        if index in pairs:
            parts.append(text[offset : runs[index][0]])
            index = pairs[index]
            offset = runs[index][1]
        index += 1
    return " ".join([*parts, text[offset:]])


def _leading_word(text: str) -> str:
    """Return the leading letters, marks and digits, with single "-", "_", "/", "'" and "’" between them.

    "+" and "#" may end it, as in "C++" and "C#", if no further letter follows.
    """
    end = 0
    for index, letter in enumerate(text):
        if letter.isalnum() or unicodedata.category(letter)[0] == "M" or letter in _JOINERS:
            end = index + 1
        elif letter not in "-_/'’" or end < index:
            break
    signs = _NAME_SIGNS.match(text, end)
    return text[: signs.end() if signs else end]


def error_location(error: BaseException) -> str:
    """Return the last calls that led to an error, file and line alone.

    Its message is left out: it could quote a user's words.
    """
    frames: list[str] = []
    traceback = error.__traceback__
    while traceback is not None:
        frames.append(
            f"{traceback.tb_frame.f_code.co_filename.rpartition('llamora')[2]}:{traceback.tb_lineno}"
        )
        traceback = traceback.tb_next
    return " > ".join(frames[-5:])
