"""The published vectors, by the vault and by the second implementation; Wycheproof for the primitives."""

# pyright: reportPrivateUsage=false
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from llamora.persistence.schema import PURPOSES
from llamora.vault import envelope, key_renewal, keys, recovery_code, session_keys, slots
from llamora.vault.envelope import Context, Damaged, SealError, UnknownFormat
from llamora.vault.kdf import Argon2Params
from llamora.vault.keys import SealedDataKey, SealedKeys
from llamora.vault.recovery_code import WrongSecret
from llamora.vault.slots import KeySlot, SlotKey
from tests.vault import second_implementation as second

Case = dict[str, Any]
PURPOSE = {purpose.number: purpose for purpose in PURPOSES}
HERE = Path(__file__).parent
VECTORS: Case = json.loads((HERE / "vectors.json").read_text("utf-8"))
USER = bytes.fromhex(VECTORS["user_id"])
MASTER = bytes.fromhex(VECTORS["master"])


def raw(case: Case, name: str) -> bytes:
    return bytes.fromhex(case[name])


def named(cases: list[Case]) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in cases]


def where(case: Case) -> tuple[bytes, str, str, bytes, int]:
    place = case["context"]
    return (
        raw(place, "user_id"),
        place["table"],
        place["column"],
        raw(place, "record_id"),
        place["revision"],
    )


@pytest.mark.parametrize("case", named(VECTORS["envelopes"]))
def test_sealed_records(case: Case) -> None:
    subkey, text, salt, sealed = (raw(case, name) for name in ("subkey", "text", "salt", "sealed"))
    purpose, epoch, context = PURPOSE[case["purpose"]], case["epoch"], Context(*where(case))
    assert context.encode() == raw(case, "ctx") == second.place(*where(case))
    assert envelope.seal(subkey, purpose, epoch, context, text, _salt=salt) == sealed
    assert envelope.open_sealed(subkey, purpose, epoch, context, sealed) == text
    assert second.seal(subkey, purpose.number, epoch, raw(case, "ctx"), text, salt) == sealed
    assert second.unseal(subkey, purpose.number, epoch, raw(case, "ctx"), sealed) == text


@pytest.mark.parametrize("case", named(VECTORS["refused"]))
def test_refused_records(case: Case) -> None:
    subkey, sealed = raw(case, "subkey"), raw(case, "sealed")
    with pytest.raises(SealError) as refusal:
        envelope.open_sealed(
            subkey, PURPOSE[case["purpose"]], case["epoch"], Context(*where(case)), sealed
        )
    assert type(refusal.value).__name__ == case["error"]
    with pytest.raises(second.Refused) as refused:
        second.unseal(subkey, case["purpose"], case["epoch"], second.place(*where(case)), sealed)
    assert refused.value.args == (case["error"],)


def test_padded_sizes() -> None:
    for text_bytes, padded in VECTORS["padded_sizes"]:
        assert envelope.padded_size(text_bytes) == padded == second.padded_length(text_bytes)


def test_data_keys_and_subkeys() -> None:
    sealing = second.derive(MASTER, USER, "master/data-keys")
    for case in VECTORS["data_keys"]:
        epoch, data_key, sealed = case["epoch"], raw(case, "data_key"), raw(case, "sealed")
        ours = keys.new_data_key(USER, MASTER, epoch, _key=data_key, _salt=raw(case, "salt"))
        assert ours == SealedDataKey(epoch, sealed)
        ctx = second.place(USER, "data_keys", "sealed", epoch.to_bytes(4, "big"), 0)
        assert second.unseal(sealing, 10, epoch, ctx, sealed) == data_key
    data_keys = tuple(
        SealedDataKey(case["epoch"], raw(case, "sealed")) for case in VECTORS["data_keys"]
    )
    ring = keys.open_keyring(
        USER, MASTER, replace(key_renewal.seal_new_keys(USER, MASTER), data_keys=data_keys)
    )
    assert ring.epoch == 70000
    for case in VECTORS["subkeys"]:
        subkey, purpose = raw(case, "subkey"), case["purpose"]
        assert (
            second.derive(raw(case, "data_key"), USER, f"purpose/{second.PURPOSES[purpose]}")
            == subkey
        )
        # A record sealed under this subkey by the other implementation opens in the keyring.
        ctx = second.place(USER, "entries", "sealed", b"id", 3)
        record = second.seal(subkey, purpose, 1, ctx, b"text", bytes(32))
        assert ring.open(PURPOSE[purpose], "entries", "sealed", b"id", 3, record) == b"text"
    assert {case["purpose"] for case in VECTORS["subkeys"]} == set(PURPOSE) == set(second.PURPOSES)


@pytest.mark.parametrize(
    "case", VECTORS["slots"], ids=["passphrase", "other-parameters", "recovery"]
)
def test_slots(case: Case) -> None:
    """HPKE draws a key for each sealing: what one of the two seals, the other opens."""
    salt, slot_id, secret = raw(case, "salt"), raw(case, "id"), case["secret"]
    if case["kind"] == "passphrase":
        params = Argon2Params.from_text(case["params"])
        key = slots.passphrase_slot_key(USER, secret, params, _salt=salt, _id=slot_id)
        kek = second.passphrase_kek(secret, salt, case["params"])
    else:
        key = slots.recovery_slot_key(USER, secret, _salt=salt, _id=slot_id)
        kek = second.derive(second.code_bits(secret), salt, "kek/recovery")
    assert key == SlotKey(slot_id, case["kind"], salt, case["params"], raw(case, "public_key"))
    assert second.public_half(second.key_pair(kek, USER)) == key.public_key
    slot = KeySlot(slot_id, case["kind"], salt, case["params"], raw(case, "sealed"))
    assert slots.open_slot(USER, slot, secret) == MASTER
    assert second.open_slot(USER, case, kek) == MASTER
    again = slots.seal_slot(USER, 7, key, MASTER)
    assert again.sealed[10:42] == second.slot_check(again.sealed[:10], USER, case, key.public_key)
    assert second.open_slot(USER, case | {"sealed": again.sealed.hex()}, kek) == MASTER
    theirs = second.seal_slot(USER, 7, case, key.public_key, MASTER)
    assert slots.open_slot(USER, replace(slot, sealed=theirs), secret) == MASTER
    for at, error in ((9, WrongSecret), (50, Damaged), (3, UnknownFormat)):
        changed = slot.sealed[:at] + bytes([slot.sealed[at] ^ 1]) + slot.sealed[at + 1 :]
        with pytest.raises(error):
            slots.open_slot(USER, replace(slot, sealed=changed), secret)
        with pytest.raises(second.Refused) as refused:
            second.open_slot(USER, case | {"sealed": changed.hex()}, kek)
        assert refused.value.args == (error.__name__,)


def test_the_list_of_slots_and_the_index_key() -> None:
    case: Case = VECTORS["keyring"]
    sealed = {name: raw(case, name) for name in ("slots", "index_key")}
    for name, text in (
        ("slots", case["slots_text"].encode()),
        ("index_key", raw(case, "index_key_text")),
    ):
        assert second.under_master(MASTER, USER, name, case["epoch"], sealed[name]) == text
        what = {"slots": keys.SLOTS, "index_key": keys.INDEX_KEY}[name]
        salt = raw(case, f"{name}_salt")
        assert (
            keys.seal_under_master(USER, MASTER, case["epoch"], what, text, _salt=salt)
            == sealed[name]
        )
    stored = SealedKeys((keys.new_data_key(USER, MASTER, 1),), **sealed)
    listed = key_renewal.living_slots(USER, MASTER, stored)
    assert slots.pack_slot_keys(listed).decode() == case["slots_text"]
    assert [each.public_key for each in listed] == [
        raw(each, "public_key") for each in VECTORS["slots"]
    ]
    ring = keys.open_keyring(USER, MASTER, stored)
    for each in VECTORS["blind"]:
        expected, value = raw(each, "blind"), raw(each, "value")
        assert ring.blind(each["label"], value) == expected
        index_key = raw(case, "index_key_text")
        assert (
            second.mac(second.derive(index_key, USER, f"blind/{each['label']}"), value) == expected
        )


def test_sessions() -> None:
    case: Case = VECTORS["sessions"]
    token, boot, session_id, salt = (
        raw(case, name) for name in ("token", "boot_secret", "session_id", "salt")
    )
    assert session_keys.session_id_of(token) == session_id
    assert session_keys.seal_for_session(USER, session_id, token, boot, MASTER, _salt=salt) == raw(
        case, "row"
    )
    assert session_keys.seal_for_cookie(USER, session_id, boot, MASTER, _salt=salt) == raw(
        case, "cookie"
    )
    row_key = second.derive(token + boot, USER, "session/row")
    cookie_key = second.derive(boot, session_id, "session/cookie")
    for name, key, column in (("row", row_key, "session"), ("cookie", cookie_key, "cookie")):
        ctx = second.place(USER, "dek_sessions", column, session_id, 0)
        assert second.unseal(key, 11, 0, ctx, raw(case, name)) == MASTER


def test_recovery_codes() -> None:
    for case in VECTORS["recovery_codes"]:
        code, bits = case["code"], raw(case, "bits")
        assert second.code_from_bits(bits) == code
        assert second.code_bits(code) == bits
        assert second.code_holds(code)
        assert recovery_code.check_recovery_code(code)
        assert "-".join(recovery_code.recovery_groups(code)) == code
    # What the vault makes, the other one accepts.
    assert all(second.code_holds(recovery_code.new_recovery_code()) for _ in range(50))


def test_the_documentation_shows_a_vector() -> None:
    page = (HERE.parents[1] / "docs" / "encryption.md").read_text("utf-8")
    case = VECTORS["envelopes"][1]
    sealed = case["sealed"]
    pieces = [
        case["subkey"],
        case["text"],
        sealed[:20],
        sealed[20:84],
        sealed[84:148],
        sealed[148:212],
    ]
    assert all(
        piece in page for piece in [*pieces, sealed[-32:], VECTORS["recovery_codes"][3]["code"]]
    )
    assert "it is not end-to-end encryption" in page


# --- Wycheproof ---------------------------------------------------------------------------------


def wycheproof() -> list[Any]:
    """The excerpt in this folder, and the complete files where the evaluation data is present."""
    excerpt = json.loads((HERE / "wycheproof_excerpt.json").read_text("utf-8"))
    sources = [pytest.param(excerpt["aes_gcm"], excerpt["hkdf_sha256"], id="excerpt")]
    data = (
        Path(os.environ.get("LLAMORA_EVAL_DATA") or HERE.parents[2] / "../shared/data")
        / "wycheproof"
    )
    if data.is_dir():
        aes = json.loads((data / "aes_gcm_test.json").read_text("utf-8"))["testGroups"]
        hkdf = json.loads((data / "hkdf_sha256_test.json").read_text("utf-8"))["testGroups"]
        wanted = [group for group in aes if (group["keySize"], group["ivSize"]) == (256, 96)]
        sources.append(
            pytest.param(
                [test for group in wanted for test in group["tests"]],
                [test for group in hkdf for test in group["tests"]],
                id="complete",
            )
        )
    return sources


@pytest.mark.parametrize(("aes_gcm", "hkdf_sha256"), wycheproof())
def test_wycheproof(aes_gcm: list[Case], hkdf_sha256: list[Case]) -> None:
    for case in aes_gcm:
        cipher, sealed = AESGCM(raw(case, "key")), raw(case, "ct") + raw(case, "tag")
        if case["result"] == "valid":
            assert cipher.encrypt(raw(case, "iv"), raw(case, "msg"), raw(case, "aad")) == sealed, (
                case["tcId"]
            )
            assert cipher.decrypt(raw(case, "iv"), sealed, raw(case, "aad")) == raw(case, "msg"), (
                case["tcId"]
            )
        else:
            with pytest.raises(InvalidTag):
                cipher.decrypt(raw(case, "iv"), sealed, raw(case, "aad"))
    for case in hkdf_sha256:
        salt, info, size = raw(case, "salt"), raw(case, "info"), case["size"]
        if case["result"] == "valid":
            assert HKDF(SHA256(), size, salt, info).derive(raw(case, "ikm")) == raw(case, "okm"), (
                case["tcId"]
            )
            pseudorandom = second.mac(salt or bytes(32), raw(case, "ikm"))
            assert HKDFExpand(SHA256(), size, info).derive(pseudorandom) == raw(case, "okm"), case[
                "tcId"
            ]
        else:
            with pytest.raises(ValueError, match="derive keys larger"):
                HKDF(SHA256(), size, salt, info)
