"""Opens and makes sealed records from docs/encryption.md alone. Shares no code with llamora.vault.

Where the vault uses AESGCM, HKDF, `hmac`, argon2-cffi and a ready HPKE, this uses Cipher with GCM, HMAC written out
as RFC 5869 has it, OpenSSL's Argon2id, and HPKE written out as RFC 9180 has it, with X-Wing put together from ML-KEM
and X25519. Slow and plain on purpose.
"""

import hashlib
import io
import math
import unicodedata

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

PURPOSES = dict(
    enumerate(
        "entry tag vector query draft profile version summary index key session".split(), start=1
    )
) | {13: "backup", 14: "trash", 15: "tagging", 16: "checksum"}


class Refused(Exception):
    """`args[0]` is the name that the documentation gives the error."""


def mac(key: bytes, data: bytes) -> bytes:
    context = hmac.HMAC(key, hashes.SHA256())
    context.update(data)
    return context.finalize()


def expand(key: bytes, info: bytes, size: int) -> bytes:
    out, block, counter = b"", b"", 1
    while len(out) < size:
        block = mac(key, block + info + bytes([counter]))
        out += block
        counter += 1
    return out[:size]


def derive(material: bytes, salt: bytes, label: str) -> bytes:
    return expand(mac(salt or bytes(32), material), b"llamora/1/" + label.encode(), 32)


def place(user_id: bytes, table: str, column: str, record_id: bytes, revision: int) -> bytes:
    out = io.BytesIO()
    for part in (user_id, table.encode(), column.encode(), record_id, revision.to_bytes(8, "big")):
        out.write(len(part).to_bytes(2, "big") + part)
    return out.getvalue()


def padded_length(text_length: int) -> int:
    length = 4 + text_length
    if length <= 256:
        return 256
    e = math.floor(math.log2(length))
    s = math.floor(math.log2(e)) + 1
    return math.ceil(length / 2 ** (e - s)) * 2 ** (e - s)


def pad(text: bytes) -> bytes:
    return len(text).to_bytes(4, "big") + text + bytes(padded_length(len(text)) - 4 - len(text))


def seal_padded(
    subkey: bytes,
    purpose: int,
    epoch: int,
    ctx: bytes,
    padded: bytes,
    salt: bytes,
    header: bytes = b"",
) -> bytes:
    header = header or b"LL\x01\x01" + bytes([purpose, 0]) + epoch.to_bytes(4, "big")
    km = expand(subkey, header + salt + ctx, 64)
    cipher = Cipher(algorithms.AES(km[:32]), modes.GCM(bytes(12))).encryptor()
    cipher.authenticate_additional_data(header + salt + km[32:] + ctx)
    body = cipher.update(padded) + cipher.finalize()
    return header + salt + km[32:] + body + cipher.tag


def seal(subkey: bytes, purpose: int, epoch: int, ctx: bytes, text: bytes, salt: bytes) -> bytes:
    return seal_padded(subkey, purpose, epoch, ctx, pad(text), salt)


def unseal(subkey: bytes, purpose: int, epoch: int, ctx: bytes, sealed: bytes) -> bytes:
    if len(sealed) < 346 or sealed[:4] != b"LL\x01\x01" or sealed[5] != 0:
        raise Refused("UnknownFormat")
    if sealed[4] != purpose or int.from_bytes(sealed[6:10], "big") != epoch:
        raise Refused("WrongHeader")
    header, salt, commitment = sealed[:10], sealed[10:42], sealed[42:74]
    body, tag = sealed[74:-16], sealed[-16:]
    km = expand(subkey, header + salt + ctx, 64)
    if km[32:] != commitment:
        raise Refused("WrongKey")
    cipher = Cipher(algorithms.AES(km[:32]), modes.GCM(bytes(12), tag)).decryptor()
    cipher.authenticate_additional_data(header + salt + commitment + ctx)
    try:
        padded = cipher.update(body) + cipher.finalize()
    except InvalidTag:
        raise Refused("Damaged") from None
    length = int.from_bytes(padded[:4], "big")
    if len(padded) != padded_length(length) or any(padded[4 + length :]):
        raise Refused("Damaged")
    return padded[4 : 4 + length]


def under_master(master: bytes, user_id: bytes, column: str, epoch: int, sealed: bytes) -> bytes:
    """What the table `keyrings` holds: the list of slots or the key of the blind indexes."""
    label = {"slots": "master/slots", "index_key": "master/index-key"}[column]
    return unseal(
        derive(master, user_id, label),
        10,
        epoch,
        place(user_id, "keyrings", column, b"", 0),
        sealed,
    )


def key_pair(kek: bytes, user_id: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    stretched = hashlib.shake_256(derive(kek, user_id, "slot/key-pair")).digest(96)
    return MLKEM768PrivateKey.from_seed_bytes(stretched[:64]), X25519PrivateKey.from_private_bytes(
        stretched[64:]
    )


def public_half(pair: tuple[MLKEM768PrivateKey, X25519PrivateKey]) -> bytes:
    return pair[0].public_key().public_bytes_raw() + pair[1].public_key().public_bytes_raw()


def x_wing(
    ml_kem_secret: bytes, x25519_secret: bytes, ephemeral: bytes, x25519_public: bytes
) -> bytes:
    return hashlib.sha3_256(
        ml_kem_secret + x25519_secret + ephemeral + x25519_public + b"\\.//^\\"
    ).digest()


def hpke_key(shared: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Key and nonce of RFC 9180's base mode: KEM 0x647a, HKDF-SHA256, AES-256-GCM."""
    suite = b"HPKE" + bytes.fromhex("647a 0001 0002")

    def extract(salt: bytes, label: bytes, material: bytes) -> bytes:
        return mac(salt or bytes(32), b"HPKE-v1" + suite + label + material)

    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")

    def labelled(label: bytes, size: int) -> bytes:
        return expand(secret, size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context, size)

    return labelled(b"key", 32), labelled(b"base_nonce", 12)


def slot_check(header: bytes, user_id: bytes, slot: dict[str, str], public: bytes) -> bytes:
    record_id = bytes.fromhex(slot["id"] + slot["salt"]) + (slot["params"] or "").encode()
    ctx = place(user_id, "key_slots", slot["kind"], record_id, 0)
    return hashlib.sha256(b"llamora/1/slot" + header + ctx + public).digest()


def open_slot(user_id: bytes, slot: dict[str, str], kek: bytes) -> bytes:
    """The master key of a slot, given what its secret was stretched to."""
    sealed = bytes.fromhex(slot["sealed"])
    if len(sealed) != 1210 or sealed[:6] != b"LL\x01\x02\x0a\0":
        raise Refused("UnknownFormat")
    ml_kem, x25519 = pair = key_pair(kek, user_id)
    if slot_check(sealed[:10], user_id, slot, public_half(pair)) != sealed[10:42]:
        raise Refused("WrongSecret")
    ciphertext, ephemeral, body, tag = (
        sealed[42:1130],
        sealed[1130:1162],
        sealed[1162:1194],
        sealed[1194:],
    )
    shared = x_wing(
        ml_kem.decapsulate(ciphertext),
        x25519.exchange(X25519PublicKey.from_public_bytes(ephemeral)),
        ephemeral,
        x25519.public_key().public_bytes_raw(),
    )
    key, nonce = hpke_key(shared, b"llamora/1/slot" + sealed[:42])
    cipher = Cipher(algorithms.AES(key), modes.GCM(nonce, tag)).decryptor()
    try:
        return cipher.update(body) + cipher.finalize()
    except InvalidTag:
        raise Refused("Damaged") from None


def seal_slot(
    user_id: bytes, epoch: int, slot: dict[str, str], public: bytes, master: bytes
) -> bytes:
    """Seal a master key to the public half of a slot."""
    prefix = b"LL\x01\x02\x0a\0" + epoch.to_bytes(4, "big")
    prefix += slot_check(prefix, user_id, slot, public)
    ml_kem_secret, ciphertext = MLKEM768PublicKey.from_public_bytes(public[:1184]).encapsulate()
    own = X25519PrivateKey.generate()
    ephemeral = own.public_key().public_bytes_raw()
    x25519_secret = own.exchange(X25519PublicKey.from_public_bytes(public[1184:]))
    shared = x_wing(ml_kem_secret, x25519_secret, ephemeral, public[1184:])
    key, nonce = hpke_key(shared, b"llamora/1/slot" + prefix)
    cipher = Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor()
    return prefix + ciphertext + ephemeral + cipher.update(master) + cipher.finalize() + cipher.tag


def passphrase_kek(passphrase: str, salt: bytes, params: str) -> bytes:
    costs = dict(part.split("=") for part in params.split(","))
    secret = unicodedata.normalize("NFKC", passphrase).encode()
    return Argon2id(
        salt=salt,
        length=32,
        iterations=int(costs["t"]),
        lanes=int(costs["p"]),
        memory_cost=int(costs["m"]),
    ).derive(secret)


ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def times_alpha(value: int, times: int) -> int:
    for _ in range(times):
        value *= 2
        if value >= 32:
            value ^= 0b100101
    return value


def code_holds(code: str) -> bool:
    symbols = [ALPHABET.index(character) for character in code.replace("-", "")]
    total = weighted = 0
    for index, symbol in enumerate(symbols):
        total ^= symbol
        weighted ^= times_alpha(symbol, 27 - index)
    return len(symbols) == 28 and total == 0 and weighted == 0


def code_bits(code: str) -> bytes:
    value = 0
    for character in code.replace("-", "")[:26]:
        value = value * 32 + ALPHABET.index(character)
    return value.to_bytes(17, "big")


def code_from_bits(bits: bytes) -> str:
    value = int.from_bytes(bits, "big")
    symbols = [value // 32 ** (25 - index) % 32 for index in range(26)]
    r1 = r2 = 0
    for s in symbols:
        f = s ^ r1
        r1, r2 = r2 ^ f ^ times_alpha(f, 1), times_alpha(f, 1)
    text = "".join(ALPHABET[symbol] for symbol in [*symbols, r1, r2])
    return "-".join(text[index : index + 4] for index in range(0, 28, 4))
