"""Looks for words in files, in every form in which a program might have left them there."""

import base64
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path


def encodings(word: str) -> Iterator[tuple[str, bytes]]:
    """The ways in which a word may stand in a file: name of the form, bytes."""
    raw_bytes = word.encode()
    yield "utf-8", raw_bytes
    yield "utf-16-le", word.encode("utf-16-le")
    yield "utf-16-be", word.encode("utf-16-be")
    yield "hex", raw_bytes.hex().encode()
    yield "HEX", raw_bytes.hex().upper().encode()
    yield (
        "url",
        "".join(f"%{byte:02X}" if byte in b" '\"" else chr(byte) for byte in raw_bytes).encode(),
    )
    for shift in range(3):
        # The letters that a word at this place of a base64 text gives whatever stands around it.
        encoded = base64.b64encode(bytes(shift) + raw_bytes)
        unambiguous = encoded[(4, 4, 4)[shift] if shift else 0 : len(encoded) - 4]
        if len(unambiguous) >= 6:
            yield f"base64+{shift}", unambiguous
            yield f"base64url+{shift}", unambiguous.replace(b"+", b"-").replace(b"/", b"_")


_ZLIB = re.compile(rb"\x78[\x01\x5e\x9c\xda]")  # how a stream of RFC 1950 begins
INFLATED_BYTES = 1_000_000


def inflate(content: bytes) -> bytes:
    """What a file holds compressed, as the index in memory holds texts."""
    texts: list[bytes] = []
    for start in _ZLIB.finditer(content):
        try:
            texts.append(zlib.decompressobj().decompress(content[start.start() :], INFLATED_BYTES))
        except zlib.error:
            continue
    return b"\n".join(texts)


def find_words(folder: Path, words: Iterable[str]) -> list[tuple[str, str, str]]:
    """(file, word, form) for every hit below `folder`, also where it is compressed; letters of either case count."""
    needles = [(word, form, needle) for word in words for form, needle in encodings(word)]
    hits: list[tuple[str, str, str]] = []
    for file in sorted(folder.rglob("*")):
        if not file.is_file():
            continue
        content = file.read_bytes()
        content += b"\n" + inflate(content)
        lower = content.lower()
        for word, form, needle in needles:
            is_hit = (
                needle.lower() in lower
                if form in ("utf-8", "utf-16-le", "utf-16-be")
                else needle in content
            )
            if is_hit:
                hits.append((file.name, word, form))
    return hits


def float_encodings(name: str, values: Sequence[float]) -> list[tuple[str, str, bytes]]:
    """(name, form, bytes) of the first numbers of a whole embedding, in the widths in which programs keep them.

    Eight bits are whole numbers from -127 to 127, of which the largest stands for the largest of all the values.
    """
    import numpy as np

    kinds = {"float32": "<f4", "float32 big-endian": ">f4", "float64": "<f8", "float16": "<f2"}
    encoded = [
        (name, form, np.array(values[:8], dtype=kind).tobytes()) for form, kind in kinds.items()
    ]
    exact = np.array(values, dtype="<f4")
    codes = np.rint(exact / (np.abs(exact).max() / 127)).astype(np.int8)
    return [*encoded, (name, "int8", codes[:16].tobytes())]


def find_bytes(
    folder: Path, needles: Iterable[tuple[str, str, bytes]]
) -> list[tuple[str, str, str]]:
    """(file, name, form) for every hit below `folder`."""
    contents = [
        (file.name, file.read_bytes()) for file in sorted(folder.rglob("*")) if file.is_file()
    ]
    return [
        (file, name, form)
        for name, form, needle in needles
        for file, content in contents
        if needle in content
    ]
