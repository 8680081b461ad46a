"""Key pairs derived from a secret, and sealing to their public half: HPKE base mode with X-Wing.

HPKE is RFC 9180. X-Wing joins X25519 with ML-KEM-768 (FIPS 203), so that what is sealed today stays
shut unless both are broken; its private key is a seed of 32 bytes, which any secret can be
stretched to. Formats are in docs/encryption.md.
"""

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from llamora.vault.envelope import Damaged
from llamora.vault.memory import Key

SEED_BYTES = 32
_MLKEM_PUBLIC_BYTES = 1184
PUBLIC_KEY_BYTES = _MLKEM_PUBLIC_BYTES + 32
OVERHEAD_BYTES = 1120 + 16
"""Encapsulated key (ML-KEM ciphertext 1088, ephemeral X25519 key 32) and tag."""

_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def _private_halves(seed: Key) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    if len(seed) != SEED_BYTES:
        raise ValueError("the seed of a key pair has 32 bytes")
    stretched = hashlib.shake_256(seed).digest(96)
    return MLKEM768PrivateKey.from_seed_bytes(stretched[:64]), X25519PrivateKey.from_private_bytes(
        stretched[64:]
    )


def public_key(seed: Key) -> bytes:
    """Derive the public half of the pair: ML-KEM-768 key, then X25519 key, 1,216 bytes."""
    mlkem, x25519 = _private_halves(seed)
    return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()


def seal_to(public: bytes, info: bytes, text: Key) -> bytes:
    """Seal `text` so that only the private half of `public` opens it, with the same `info`."""
    if len(public) != PUBLIC_KEY_BYTES:
        raise ValueError("a public key has 1216 bytes")
    pair = MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC_BYTES]),
        X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC_BYTES:]),
    )
    return _SUITE.encrypt(text, pair, info=info)


def open_with(seed: Key, info: bytes, sealed: bytes) -> bytearray:
    """Open what was sealed to the public half; the caller wipes it. Raise :class:`Damaged`."""
    try:
        return bytearray(
            _SUITE.decrypt(sealed, MLKEM768X25519PrivateKey(*_private_halves(seed)), info=info)
        )
    except InvalidTag:
        raise Damaged("the sealed key was changed after it was sealed") from None
