"""Opens a Llamora backup without Llamora: `python open_backup.py FILE > journal.jsonl`.

Asks for the passphrase or the recovery code, checks every part and record, and prints one JSON line for each record:
its table, its id and what was sealed in it. Needs Python 3.11, `cryptography` and `argon2-cffi`, and nothing else.
Written from docs/encryption.md, where the format is described; shares no code with the program.
"""

import argparse
import getpass
import hashlib
import hmac
import json
import struct
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
KEY, BACKUP = 10, 13
# Table: the number of its purpose, the name of it, the column that is the record's id ("" is the writer's own).
TABLES = {
    "profiles": (6, "profile", ""),
    "entries": (1, "entry", "id"),
    "tags": (2, "tag", "tag"),
    "tag_meta": (15, "tagging", ""),
    "tag_changes": (15, "tagging", "id"),
    "tag_rejections": (15, "tagging", "entry_id"),
    "versions": (7, "version", "id"),
    "drafts": (5, "draft", "draft_key"),
    "summaries": (8, "summary", "summary_key"),
    "trash": (14, "trash", ""),
    "search_history": (4, "query", "id"),
}


# What Python says of JSON and numbers that no backup has.
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, struct.error)


class Broken(Exception):
    """What is wrong with the file or the secret, in a sentence."""


def hkdf(material: bytes, salt: bytes, label: str) -> bytes:
    """HKDF-SHA256 with a label of ours."""
    return HKDF(SHA256(), 32, salt, b"llamora/1/" + label.encode()).derive(material)


def open_sealed(key: bytes, purpose: int, place: tuple[bytes, str, str, bytes, int], sealed: bytes) -> bytes:
    """The text of a sealed record; `place` is user id, table, column, record id, revision."""
    if len(sealed) < 346 or sealed[:5] != b"LL\x01\x01" + bytes([purpose]) or sealed[5] != 0:
        raise Broken("A sealed part has a form that is not known here.")
    parts = [part.encode() if isinstance(part, str) else part for part in place[:4]] + [place[4].to_bytes(8, "big")]
    ctx = b"".join(struct.pack(">H", len(part)) + part for part in parts)
    km = HKDFExpand(SHA256(), 64, sealed[:42] + ctx).derive(key)
    if not hmac.compare_digest(km[32:], sealed[42:74]):
        raise Broken("A sealed part was made with another key, or for another place.")
    try:
        padded = AESGCM(km[:32]).decrypt(bytes(12), sealed[74:], sealed[:74] + ctx)
    except Exception:
        raise Broken("A sealed part was changed after it was made.") from None
    (size,) = struct.unpack_from(">I", padded)
    return padded[4 : 4 + size]


def code_value(typed: str) -> int | None:
    """The 130 bits of a recovery code, or None for what is none."""
    letters = (c for c in unicodedata.normalize("NFKC", typed).upper() if c.isalnum())
    symbols = [CROCKFORD.find(c) for c in "".join(letters).translate(str.maketrans("ILO", "110"))]
    if len(symbols) != 28 or -1 in symbols:
        return None
    plain = weighted = 0
    for symbol in symbols:
        plain ^= symbol
        doubled = weighted << 1
        weighted = (doubled ^ (0b100101 if doubled & 32 else 0)) ^ symbol
    if plain or weighted:
        return None
    return sum(symbol << 5 * (25 - place) for place, symbol in enumerate(symbols[:26]))


def slot_key(slot: dict[str, Any], secret: str) -> bytes | None:
    """What the key pair of a slot is made from, or None where the secret is of another kind."""
    salt = bytes.fromhex(slot["salt"])
    if slot["kind"] not in ("passphrase", "recovery"):
        return None
    if slot["kind"] == "recovery":
        value = code_value(secret)
        return None if value is None else hkdf(value.to_bytes(17, "big"), salt, "kek/recovery")
    cost = {name: int(number) for name, number in (part.split("=") for part in slot["params"].split(","))}
    if not 65536 <= cost["m"] <= 1024 * 1024 or not 0 < cost["t"] * cost["m"] <= 8 * 1024 * 1024:
        raise Broken("The cost of the passphrase check is out of bounds.")
    text = unicodedata.normalize("NFKC", secret).encode("utf-8", "surrogatepass")
    return hash_secret_raw(text, salt, cost["t"], cost["m"], cost["p"], 32, Type.ID)


def open_slot(user: bytes, slot: dict[str, Any], kek: bytes) -> bytes | None:
    """The master key in a slot, or None where it is sealed to another key."""
    stretched = hashlib.shake_256(hkdf(kek, user, "slot/key-pair")).digest(96)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(stretched[:64])
    x25519 = X25519PrivateKey.from_private_bytes(stretched[64:])
    public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    sealed = bytes.fromhex(slot["sealed"])
    if sealed[:4] != b"LL\x01\x02" or sealed[4:6] != bytes([KEY, 0]):
        raise Broken("A key slot has a form that is not known here.")
    place = bytes.fromhex(slot["id"]) + bytes.fromhex(slot["salt"]) + (slot["params"] or "").encode()
    parts = (user, b"key_slots", slot["kind"].encode(), place, bytes(8))
    ctx = b"".join(struct.pack(">H", len(part)) + part for part in parts)
    if not hmac.compare_digest(hashlib.sha256(b"llamora/1/slot" + sealed[:10] + ctx + public).digest(), sealed[10:42]):
        return None
    suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    try:
        return suite.decrypt(sealed[42:], MLKEM768X25519PrivateKey(mlkem, x25519), info=b"llamora/1/slot" + sealed[:42])
    except InvalidTag:
        raise Broken("A key slot was changed after it was made.") from None


def master_key(user: bytes, slots: list[dict[str, Any]], secret: str) -> bytes:
    """The user's master key, by whichever slot opens."""
    for slot in sorted(slots, key=lambda slot: slot["kind"], reverse=True):  # the code first: it costs nothing
        try:
            kek = slot_key(slot, secret)
        except Broken:  # spoiled before the backup was made: another may open it
            continue
        master = None if kek is None else open_slot(user, slot, kek)
        if master is not None:
            return master
    raise Broken("That is neither the passphrase nor the recovery code that opens this backup.")


def pieces(content: bytes) -> Iterator[bytes]:
    """The parts of u32 length | bytes | u32 length | bytes ..."""
    at = 0
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        if at + 4 + length > len(content):
            raise Broken("The backup is cut short.")
        yield content[at + 4 : at + 4 + length]
        at += 4 + length


def records(file: bytes, secret: str) -> Iterator[dict[str, Any]]:
    """Every record of a backup, and its manifest at the end."""
    if file[:9] != b"LLBACKUP\x02":
        raise Broken("This is not a backup, or one of another version.")
    (length,) = struct.unpack_from(">I", file, 9)
    beginning = file[: 13 + length]
    header = json.loads(beginning[13:])
    user = bytes.fromhex(header["user"])
    master = master_key(user, header["slots"], secret)
    sealing = hkdf(master, user, "master/data-keys")
    data_keys: dict[int, bytes] = {}
    for item in header["data_keys"]:
        place = (user, "data_keys", "sealed", item["epoch"].to_bytes(4, "big"), 0)
        data_keys[item["epoch"]] = open_sealed(sealing, KEY, place, bytes.fromhex(item["sealed"]))

    def opened(purpose: int, name: str, place: tuple[bytes, str, str, bytes, int], sealed: bytes) -> bytes:
        epoch = int.from_bytes(sealed[6:10], "big")
        if epoch not in data_keys:
            raise Broken("A sealed part names a key that is not in this backup.")
        return open_sealed(hkdf(data_keys[epoch], user, f"purpose/{name}"), purpose, place, sealed)

    digest = hashlib.sha256(beginning).digest()
    chunks = list(pieces(file[len(beginning) :]))
    for number, sealed in enumerate(chunks):
        column = "last" if number == len(chunks) - 1 else "chunk"  # a file that was cut short has no last one
        content = opened(BACKUP, "backup", (user, "backup", column, digest, number), sealed)
        if column == "last":
            yield {"table": "", "record": json.loads(content)}
            return
        parts = pieces(content)
        for head in parts:
            row, envelope = json.loads(head), next(parts)
            found = {"table": row["table"], **row["columns"]}
            if envelope and not row.get("unreadable"):
                purpose, name, column = TABLES[row["table"]]
                record_id = bytes.fromhex(row["columns"][column]) if column else user
                place = (user, row["table"], "sealed", record_id, row["columns"]["revision"])
                text = opened(purpose, name, place, envelope).decode("utf-8", "surrogatepass")
                found["record"] = text if row["table"] == "tags" else json.loads(text)
            yield found
    raise Broken("The backup is cut short.")


def main() -> int:
    """Ask, open, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    asked = "Passphrase or recovery code: "
    secret = getpass.getpass(asked) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    try:
        for record in records(options.file.read_bytes(), secret):
            print(json.dumps(record))
    except (Broken, OSError, *UNREADABLE) as error:
        words = str(error) if isinstance(error, Broken) else f"The backup cannot be read ({type(error).__name__})."
        print(words, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
