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
from base64 import b64decode
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
# What Python says of JSON and numbers that no backup has.
UNREADABLE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    struct.error,
)


class BackupError(Exception):
    """What is wrong with the file or the secret, in a sentence."""


def hkdf(material: bytes, salt: bytes, label: str) -> bytes:
    """HKDF-SHA256 with a label of ours."""
    return HKDF(SHA256(), 32, salt, b"llamora/1/" + label.encode()).derive(material)


def open_sealed(
    key: bytes, purpose: int, location: tuple[bytes, str, str, bytes, int], sealed: bytes
) -> bytes:
    """The text of a sealed record; `place` is user id, table, column, record id, revision."""
    if len(sealed) < 346 or sealed[:5] != b"LL\x01\x01" + bytes([purpose]) or sealed[5] != 0:
        raise BackupError("A sealed part has a form that is not known here.")
    parts = [part.encode() if isinstance(part, str) else part for part in location[:4]] + [
        location[4].to_bytes(8, "big")
    ]
    context = b"".join(struct.pack(">H", len(part)) + part for part in parts)
    key_material = HKDFExpand(SHA256(), 64, sealed[:42] + context).derive(key)
    if not hmac.compare_digest(key_material[32:], sealed[42:74]):
        raise BackupError("A sealed part was made with another key, or for another place.")
    try:
        padded = AESGCM(key_material[:32]).decrypt(bytes(12), sealed[74:], sealed[:74] + context)
    except Exception:
        raise BackupError("A sealed part was changed after it was made.") from None
    (size,) = struct.unpack_from(">I", padded)
    return padded[4 : 4 + size]


def decode_recovery_code(typed: str) -> int | None:
    """The 130 bits of a recovery code, or None for what is none."""
    letters = (c for c in unicodedata.normalize("NFKC", typed).upper() if c.isalnum())
    symbols = [CROCKFORD.find(c) for c in "".join(letters).translate(str.maketrans("ILO", "110"))]
    if len(symbols) != 28 or -1 in symbols:
        return None
    check_sum = weighted_check_sum = 0
    for symbol in symbols:
        check_sum ^= symbol
        doubled = weighted_check_sum << 1
        weighted_check_sum = (doubled ^ (0b100101 if doubled & 32 else 0)) ^ symbol
    if check_sum or weighted_check_sum:
        return None
    return sum(symbol << 5 * (25 - place) for place, symbol in enumerate(symbols[:26]))


def derive_slot_key(slot: dict[str, Any], secret: str) -> bytes | None:
    """What the key pair of a slot is made from, or None where the secret is of another kind."""
    salt = b64decode(slot["salt"])
    if slot["kind"] not in ("passphrase", "recovery"):
        return None
    if slot["kind"] == "recovery":
        value = decode_recovery_code(secret)
        return None if value is None else hkdf(value.to_bytes(17, "big"), salt, "kek/recovery")
    cost = {
        name: int(number)
        for name, number in (part.split("=") for part in slot["params"].split(","))
    }
    if not 65536 <= cost["m"] <= 1024 * 1024 or not 0 < cost["t"] * cost["m"] <= 8 * 1024 * 1024:
        raise BackupError("The cost of the passphrase check is out of bounds.")
    text = unicodedata.normalize("NFKC", secret).encode("utf-8", "surrogatepass")
    return hash_secret_raw(text, salt, cost["t"], cost["m"], cost["p"], 32, Type.ID)


def open_slot(user: bytes, slot: dict[str, Any], kek: bytes) -> bytes | None:
    """The master key in a slot, or None where it is sealed to another key."""
    stretched = hashlib.shake_256(hkdf(kek, user, "slot/key-pair")).digest(96)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(stretched[:64])
    x25519 = X25519PrivateKey.from_private_bytes(stretched[64:])
    public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    sealed = b64decode(slot["sealed"])
    if sealed[:4] != b"LL\x01\x02" or sealed[4:6] != bytes([KEY, 0]):
        raise BackupError("A key slot has a form that is not known here.")
    place = b64decode(slot["id"]) + b64decode(slot["salt"]) + (slot["params"] or "").encode()
    parts = (user, b"key_slots", slot["kind"].encode(), place, bytes(8))
    ctx = b"".join(struct.pack(">H", len(part)) + part for part in parts)
    if not hmac.compare_digest(
        hashlib.sha256(b"llamora/1/slot" + sealed[:10] + ctx + public).digest(), sealed[10:42]
    ):
        return None
    suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    try:
        return suite.decrypt(
            sealed[42:],
            MLKEM768X25519PrivateKey(mlkem, x25519),
            info=b"llamora/1/slot" + sealed[:42],
        )
    except InvalidTag:
        raise BackupError("A key slot was changed after it was made.") from None


def open_master_key(user_id: bytes, slots: list[dict[str, Any]], secret: str) -> bytes:
    """The user's master key, by whichever slot opens."""
    for slot in sorted(
        slots, key=lambda slot: slot["kind"], reverse=True
    ):  # the code first: it costs nothing
        try:
            kek = derive_slot_key(slot, secret)
        except BackupError:  # spoiled before the backup was made: another may open it
            continue
        master = None if kek is None else open_slot(user_id, slot, kek)
        if master is not None:
            return master
    raise BackupError(
        "That is neither the passphrase nor the recovery code that opens this backup."
    )


def split_pieces(content: bytes) -> Iterator[bytes]:
    """The parts of u32 length | bytes | u32 length | bytes ..."""
    offset = 0
    while offset < len(content):
        (length,) = struct.unpack_from(">I", content, offset)
        if offset + 4 + length > len(content):
            raise BackupError("The backup is cut short.")
        yield content[offset + 4 : offset + 4 + length]
        offset += 4 + length


def read_records(file: bytes, secret: str) -> Iterator[dict[str, Any]]:
    """Every record of a backup, and its manifest at the end."""
    if file[:9] != b"LLBACKUP\x03":
        raise BackupError("This is not a backup, or one of another version.")
    (length,) = struct.unpack_from(">I", file, 9)
    header_bytes = file[: 13 + length]
    header = json.loads(header_bytes[13:])
    user_id = b64decode(header["user"])
    master = open_master_key(user_id, header["slots"], secret)
    wrapping_key = hkdf(master, user_id, "master/data-keys")
    data_keys: dict[int, bytes] = {}
    for item in header["data_keys"]:
        location = (user_id, "data_keys", "sealed", item["epoch"].to_bytes(4, "big"), 0)
        data_keys[item["epoch"]] = open_sealed(
            wrapping_key, KEY, location, b64decode(item["sealed"])
        )

    def open_record(
        purpose: int, name: str, location: tuple[bytes, str, str, bytes, int], sealed: bytes
    ) -> bytes:
        epoch = int.from_bytes(sealed[6:10], "big")
        if epoch not in data_keys:
            raise BackupError("A sealed part names a key that is not in this backup.")
        return open_sealed(
            hkdf(data_keys[epoch], user_id, f"purpose/{name}"), purpose, location, sealed
        )

    digest = hashlib.sha256(header_bytes).digest()
    chunks = list(split_pieces(file[len(header_bytes) :]))
    for number, sealed in enumerate(chunks):
        column = (
            "last" if number == len(chunks) - 1 else "chunk"
        )  # a file that was cut short has no last one
        content = open_record(BACKUP, "backup", (user_id, "backup", column, digest, number), sealed)
        if column == "last":
            yield {"table": "", "record": json.loads(content)}
            return
        parts = split_pieces(content)
        for head in parts:
            row, envelope = json.loads(head), next(parts)
            record = {"table": row["table"], **row["columns"]}
            if envelope and not row.get("unreadable"):
                purpose, name, column = header["kinds"][row["table"]]
                of_user = column == "user_id"
                record_id = user_id if of_user else b64decode(row["columns"][column])
                location = (user_id, row["table"], "sealed", record_id, row["columns"]["revision"])
                record["record"] = json.loads(open_record(purpose, name, location, envelope))
            yield record
    raise BackupError("The backup is cut short.")


def main() -> int:
    """Ask, open, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    question = "Passphrase or recovery code: "
    secret = (
        getpass.getpass(question) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    )
    try:
        for record in read_records(options.file.read_bytes(), secret):
            print(json.dumps(record))
    except (BackupError, OSError, *UNREADABLE) as error:
        message = (
            str(error)
            if isinstance(error, BackupError)
            else f"The backup cannot be read ({type(error).__name__})."
        )
        print(message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
