# pyright: reportPrivateUsage=false
import os
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
from argon2 import low_level
from hypothesis import given
from hypothesis import strategies as st

from llamora.persistence.schema import ENTRY, PURPOSES
from llamora.vault import kdf, key_renewal, keys, recovery_code, session_keys, slots
from llamora.vault.envelope import Damaged, Purpose, SealError, UnknownFormat, VaultError, WrongKey
from llamora.vault.kdf import Argon2Params, BadParameters, KdfUnavailable
from llamora.vault.key_renewal import NewKeys
from llamora.vault.keys import Keyring, KeyringClosed, MissingEpoch
from llamora.vault.recovery_code import RecoveryCodeError, WrongSecret
from llamora.vault.slots import KeySlot
from tests.vault import second_implementation as second

ANNA, BOB = b"a" * 16, b"b" * 16
PASSPHRASE = "seven quiet herons over the weir"
FLOOR = Argon2Params(65536, 3, 4)
SYMBOLS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

codes = st.integers(0, 2**130 - 1).map(lambda bits: second.code_from_bits(bits.to_bytes(17, "big")))


@pytest.fixture(scope="module")
def annas() -> NewKeys:
    return key_renewal.create_keys(ANNA, PASSPHRASE, FLOOR)


@pytest.fixture
def ring(annas: NewKeys) -> Keyring:
    return keys.open_keyring(ANNA, annas.master, annas.sealed)


# --- Argon2id -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        (65535, 3, 4),
        (65536, 2, 4),
        (65536, 3, 3),
        (1048577, 3, 4),
        (65536, 33, 4),
        (65536, 3, 17),
        (1048576, 9, 4),
        (64 * 1024 * 1024, 3, 4),
        (0, 0, 0),
        (-65536, 3, 4),
    ],
)
def test_parameters_outside_the_bounds(values: tuple[int, int, int]) -> None:
    with pytest.raises(BadParameters):
        Argon2Params(*values)
    with pytest.raises(BadParameters):
        Argon2Params.from_text("m={},t={},p={}".format(*values))


@given(st.integers(65536, 262144), st.integers(3, 32), st.integers(4, 16))
def test_parameters_as_text(memory: int, passes: int, lanes: int) -> None:
    params = Argon2Params(memory, passes, lanes)
    assert Argon2Params.from_text(params.to_text()) == params


@pytest.mark.parametrize(
    "text",
    ["", "m=65536", "m=65536,t=3,p=4,", "m=65536,t=3,p=4 ", "m=065536,t=3,p=4", "t=3,m=65536,p=4", "m=٦٥٥٣٦,t=3,p=4",
     "m=65536,t=3,p=4\n", "m=" + "9" * 9000 + ",t=3,p=4", "M=65536,t=3,p=4", "m=65536,t=3,p=x"],
)  # fmt: skip
def test_parameters_that_do_not_read(text: str) -> None:
    with pytest.raises(BadParameters):
        Argon2Params.from_text(text)


@given(st.text(max_size=40))
def test_no_text_breaks_the_parameter_reader(text: str) -> None:
    with pytest.raises(BadParameters):
        Argon2Params.from_text(text)


def machine(ms_per_mib_pass: float) -> Callable[[Argon2Params], float]:
    """A machine on which the KDF takes time in proportion to memory x passes, as real ones do."""
    return lambda params: params.memory_kib / 1024 * params.time_cost * ms_per_mib_pass


@given(st.floats(0.01, 10), st.integers(100, 1000))
def test_calibration_reaches_its_target(speed: float, target: int) -> None:
    measure = machine(speed)
    found = kdf.calibrate(target, FLOOR, _measure=measure)
    assert found.memory_kib >= FLOOR.memory_kib
    assert found.time_cost >= FLOOR.time_cost
    assert found.parallelism == FLOOR.parallelism
    if found != FLOOR:
        assert measure(found) <= target * 4 / 3
    # Close below the target, unless the machine is too slow for the floor or faster than the ceiling.
    if measure(FLOOR) < target and found.memory_kib * found.time_cost < 7 * 1024 * 1024:
        assert measure(found) >= target * 0.7 or found.time_cost == 32
    assert found.time_cost == 3 or found.memory_kib >= 256 * 1024


def test_calibration_starts_at_the_floor_it_is_given() -> None:
    floor = Argon2Params(131072, 4, 6)
    assert kdf.calibrate(0, floor) == floor
    assert kdf.calibrate(300, floor, _measure=machine(5)) == floor
    assert kdf.calibrate(300, floor, _measure=machine(0.3)).memory_kib > floor.memory_kib


def test_calibration_when_the_machine_slows_down_or_lacks_memory() -> None:
    measured: list[Argon2Params] = []

    def slow_when_large(params: Argon2Params) -> float:
        measured.append(params)
        return machine(0.5 if params == FLOOR else 2)(params)

    assert slow_when_large(kdf.calibrate(300, FLOOR, _measure=slow_when_large)) <= 400

    def little_memory(params: Argon2Params) -> float:
        if params.memory_kib > 100_000:
            raise KdfUnavailable(64)
        return machine(0.5)(params)

    assert kdf.calibrate(300, FLOOR, _measure=little_memory).memory_kib <= 100_000
    assert len(measured) <= 8


def test_calibration_on_this_machine() -> None:
    found = kdf.calibrate(1, FLOOR)
    assert found == FLOOR  # nothing derives with the floor in a millisecond


def test_a_machine_without_memory_says_so(monkeypatch: pytest.MonkeyPatch, annas: NewKeys) -> None:
    class NoMemory(SimpleNamespace):
        ARGON2_OK = 0

        def argon2_hash(self, *_: object) -> int:
            return -22  # ARGON2_MEMORY_ALLOCATION_ERROR

    monkeypatch.setattr(low_level, "lib", NoMemory())
    with pytest.raises(KdfUnavailable):
        slots.open_slot(ANNA, annas.slots[0], PASSPHRASE)


# --- Recovery code ------------------------------------------------------------------------------


def test_new_codes() -> None:
    made = {recovery_code.new_recovery_code() for _ in range(200)}
    assert len(made) == 200
    for code in made:
        groups = code.split("-")
        assert [len(group) for group in groups] == [4] * 7
        assert set("".join(groups)) <= set(SYMBOLS)
        assert recovery_code.check_recovery_code(code)
        assert recovery_code.recovery_groups(code) == groups


@given(codes)
def test_a_code_survives_how_people_type(code: str) -> None:
    plain = code.replace("-", "")
    wide = "".join(chr(ord(symbol) + 0xFEE0) for symbol in plain)
    for typed in (
        code.lower(),
        plain,
        plain.replace("1", "I").replace("0", "O"),
        plain.replace("1", "l").replace("0", "o"),
        code.replace("-", " "),
        code.replace("-", " – "),
        code.replace("-", "\u2011"),
        f"\t{code}\r\n",
        "\ufeff" + "\u200b".join(plain),
        wide,
    ):
        assert recovery_code.recovery_groups(typed) == code.split("-")


@given(codes, st.integers(0, 27), st.sampled_from(SYMBOLS))
def test_one_wrong_symbol_is_noticed(code: str, at: int, symbol: str) -> None:
    plain = code.replace("-", "")
    typed = plain[:at] + symbol + plain[at + 1 :]
    assert recovery_code.check_recovery_code(typed) == (typed == plain)


@given(codes, st.integers(0, 27), st.integers(0, 27))
def test_two_exchanged_symbols_are_noticed(code: str, one: int, other: int) -> None:
    symbols = list(code.replace("-", ""))
    symbols[one], symbols[other] = symbols[other], symbols[one]
    typed = "".join(symbols)
    assert recovery_code.check_recovery_code(typed) == (typed == code.replace("-", ""))


@given(
    codes,
    st.integers(0, 27),
    st.integers(0, 27),
    st.sampled_from(SYMBOLS),
    st.sampled_from(SYMBOLS),
)
def test_two_wrong_symbols_are_noticed(
    code: str, one: int, other: int, first: str, second: str
) -> None:
    symbols = list(code.replace("-", ""))
    symbols[one], symbols[other] = first, second
    typed = "".join(symbols)
    assert recovery_code.check_recovery_code(typed) == (typed == code.replace("-", ""))


@given(st.text(max_size=60))
def test_no_text_breaks_the_code_reader(text: str) -> None:
    assert not recovery_code.check_recovery_code(text)
    with pytest.raises(RecoveryCodeError) as error:
        recovery_code.recovery_groups(text)
    assert str(error.value).isascii()


def test_codes_of_another_shape() -> None:
    code = recovery_code.new_recovery_code()
    for changed in (code[:-1], code + "0", "U" + code[1:], code.replace("-", "/")):
        assert not recovery_code.check_recovery_code(changed)


def test_confirming_one_group() -> None:
    assert recovery_code.same_group("10AB", " 1oab ")
    assert recovery_code.same_group("10AB", "l0-ab")
    assert not recovery_code.same_group("10AB", "10AC")
    assert not recovery_code.same_group("10AB", "")
    assert not recovery_code.same_group("10AB", "\ud800")


# --- Slots --------------------------------------------------------------------------------------


def test_both_slots_open_to_the_same_master_key(annas: NewKeys) -> None:
    passphrase, recovery = annas.slots
    assert (passphrase.kind, recovery.kind) == ("passphrase", "recovery")
    assert slots.open_slot(ANNA, passphrase, PASSPHRASE) == annas.master
    assert slots.open_slot(ANNA, recovery, annas.recovery_code.lower()) == annas.master
    assert len(annas.master) == 32
    (data_key,) = annas.sealed.data_keys
    assert annas.master not in passphrase.sealed + recovery.sealed + data_key.sealed
    listed = key_renewal.living_slots(ANNA, annas.master, annas.sealed)
    assert [(each.id, each.kind, each.salt, each.params) for each in listed] == [
        (each.id, each.kind, each.salt, each.params) for each in annas.slots
    ]
    # The public halves are in the sealed list only.
    assert not any(
        each.public_key[:32] in annas.sealed.slots + passphrase.sealed + recovery.sealed
        for each in listed
    )


def test_wrong_secrets(annas: NewKeys) -> None:
    passphrase, recovery = annas.slots
    for wrong in (PASSPHRASE + " ", ""):
        with pytest.raises(WrongSecret) as error:
            slots.open_slot(ANNA, passphrase, wrong)
        assert PASSPHRASE not in str(error.value)
    with pytest.raises(WrongSecret) as error:
        slots.open_slot(ANNA, recovery, recovery_code.new_recovery_code())
    assert type(error.value) is WrongSecret
    with pytest.raises(RecoveryCodeError):
        slots.open_slot(ANNA, recovery, annas.recovery_code[:-1])


def passphrase_slot(passphrase: str, params: Argon2Params = FLOOR) -> KeySlot:
    return slots.seal_slot(ANNA, 1, slots.passphrase_slot_key(ANNA, passphrase, params), bytes(32))


def test_the_same_words_from_another_keyboard() -> None:
    slot = passphrase_slot("Caf\u00e9 \u2167 \ufb01n")
    assert slots.open_slot(ANNA, slot, "Cafe\u0301 VIII fin") == bytes(32)


def test_a_passphrase_that_is_not_unicode() -> None:
    assert slots.open_slot(ANNA, passphrase_slot("\ud83d alone"), "\ud83d alone") == bytes(32)


def test_a_slot_is_sealed_without_its_secret(annas: NewKeys) -> None:
    code = recovery_code.new_recovery_code()
    key = slots.recovery_slot_key(ANNA, code)
    one, other = (slots.seal_slot(ANNA, epoch, key, bytes([epoch]) * 32) for epoch in (1, 2))
    assert slots.open_slot(ANNA, one, code) == b"\1" * 32
    assert slots.open_slot(ANNA, other, code) == b"\2" * 32
    assert (one.id, one.salt) == (other.id, other.salt)
    assert (
        slots.recovery_slot_key(ANNA, code).public_key != key.public_key
    )  # a new salt is a new pair


def test_several_slots_of_a_kind_and_kinds_that_open_elsewhere(annas: NewKeys) -> None:
    codes = [recovery_code.new_recovery_code() for _ in range(2)]
    made = [
        slots.seal_slot(ANNA, 1, slots.recovery_slot_key(ANNA, code), bytes([n]) * 32)
        for n, code in enumerate(codes)
    ]
    passkey = replace(made[0], kind="passkey")
    assert slots.open_slots(ANNA, [passkey, *made], codes[0]) == bytes(32)
    assert slots.open_slots(ANNA, [passkey, *made], codes[1]) == b"\1" * 32
    with pytest.raises(WrongSecret):
        slots.open_slots(ANNA, [passkey], codes[0])
    with pytest.raises(WrongSecret):
        slots.open_slot(ANNA, passkey, codes[0])


def test_an_exchanged_recovery_slot(annas: NewKeys) -> None:
    recovery = annas.slots[1]
    code = annas.recovery_code
    other = slots.seal_slot(ANNA, 1, slots.recovery_slot_key(ANNA, code), annas.master)
    with pytest.raises(WrongSecret):
        slots.open_slot(BOB, recovery, code)
    for changed in (
        replace(recovery, salt=other.salt),
        replace(recovery, sealed=other.sealed),
        replace(recovery, id=other.id),
        replace(recovery, params="m=65536,t=3,p=4"),  # parameters on a slot that has none
        replace(
            recovery, sealed=recovery.sealed[:9] + b"\2" + recovery.sealed[10:]
        ),  # another epoch
    ):
        with pytest.raises(WrongSecret):
            slots.open_slot(ANNA, changed, code)


def test_an_exchanged_passphrase_slot(annas: NewKeys) -> None:
    passphrase = annas.slots[0]
    with pytest.raises(WrongSecret):
        slots.open_slot(BOB, passphrase, PASSPHRASE)
    with pytest.raises(WrongSecret):
        slots.open_slot(ANNA, replace(passphrase, params="m=65544,t=3,p=4"), PASSPHRASE)
    for params in (None, "m=8,t=1,p=1"):
        with pytest.raises(BadParameters):
            slots.open_slot(ANNA, replace(passphrase, params=params), PASSPHRASE)
    with pytest.raises(RecoveryCodeError):
        slots.open_slot(ANNA, replace(passphrase, kind="recovery", params=None), PASSPHRASE)
    with pytest.raises(UnknownFormat):
        slots.open_slot(ANNA, replace(passphrase, salt=b"short"), PASSPHRASE)


def test_parameters_are_bound_even_under_the_right_kek(
    annas: NewKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the KEK the same for all parameters, lowered ones would still be refused."""

    def one_kek(*_: object) -> bytearray:
        return bytearray(32)

    monkeypatch.setattr(kdf, "argon2id", one_kek)
    slot = passphrase_slot(PASSPHRASE, Argon2Params(131072, 3, 4))
    assert slots.open_slot(ANNA, slot, PASSPHRASE) == bytes(32)
    for changed in (
        replace(slot, params=FLOOR.to_text()),
        replace(slot, salt=bytes(32)),
        replace(slot, params="m=131072,t=3,p=5"),
    ):
        with pytest.raises(WrongSecret):
            slots.open_slot(ANNA, changed, PASSPHRASE)


def test_a_damaged_slot_is_not_a_wrong_secret(annas: NewKeys) -> None:
    recovery = annas.slots[1]
    sealed = recovery.sealed
    for at in (
        42,
        1129,
        1130,
        1161,
        len(sealed) - 1,
    ):  # ML-KEM ciphertext, X25519 key, master key, tag
        changed = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(Damaged):
            slots.open_slot(ANNA, replace(recovery, sealed=changed), annas.recovery_code)
    for changed in (
        b"",
        sealed[:-1],
        sealed + b"\0",
        *(sealed[:at] + b"\7" + sealed[at + 1 :] for at in range(6)),
    ):
        with pytest.raises(UnknownFormat):
            slots.open_slot(ANNA, replace(recovery, sealed=changed), annas.recovery_code)


# --- New keys -----------------------------------------------------------------------------------


def test_new_keys_are_sealed_for_the_slots_that_are_kept(annas: NewKeys) -> None:
    code = recovery_code.new_recovery_code()
    added = slots.recovery_slot_key(ANNA, code)
    new = key_renewal.renew_keys(
        ANNA, annas.master, annas.sealed, add=[added], keep=lambda slot: slot.kind != "passphrase"
    )
    kept, fresh = new.slots
    assert (kept.id, fresh.id) == (annas.slots[1].id, added.id)
    assert slots.open_slot(ANNA, kept, annas.recovery_code) == new.master != annas.master
    assert slots.open_slot(ANNA, fresh, code) == new.master
    assert [slot.id for slot in key_renewal.living_slots(ANNA, new.master, new.sealed)] == [
        kept.id,
        fresh.id,
    ]
    assert [key.epoch for key in new.sealed.data_keys] == [1, 2]
    again = key_renewal.renew_keys(ANNA, new.master, new.sealed)
    assert slots.open_slot(ANNA, again.slots[1], code) == again.master
    assert again.sealed.epoch == 3


def test_what_an_old_slot_opens_opens_nothing_new(annas: NewKeys, ring: Keyring) -> None:
    before = ring.seal(ENTRY, "entries", "sealed", b"1", 1, b"before")
    new = key_renewal.renew_keys(ANNA, annas.master, annas.sealed)
    renewed = keys.open_keyring(ANNA, new.master, new.sealed)
    after = renewed.seal(ENTRY, "entries", "sealed", b"1", 2, b"after")
    assert renewed.open(ENTRY, "entries", "sealed", b"1", 1, before) == b"before"
    assert renewed.blind("day", b"2026-11-20") == ring.blind("day", b"2026-11-20")
    old = slots.open_slot(ANNA, annas.slots[0], PASSPHRASE)
    with pytest.raises(WrongKey):
        keys.open_keyring(ANNA, old, new.sealed)
    with pytest.raises(WrongKey):
        key_renewal.living_slots(ANNA, old, new.sealed)
    for key in new.sealed.data_keys:
        with pytest.raises(WrongKey):
            keys.open_keyring(ANNA, old, replace(annas.sealed, data_keys=(key,)))
    with pytest.raises(MissingEpoch):
        keys.open_keyring(ANNA, old, annas.sealed).open(ENTRY, "entries", "sealed", b"1", 2, after)
    # The old data key under the number of the new one does not help.
    relabelled = replace(
        annas.sealed, data_keys=(keys.new_data_key(ANNA, old, 2, _key=ring._data_keys[1]),)
    )
    with pytest.raises(WrongKey):
        keys.open_keyring(ANNA, old, relabelled).open(ENTRY, "entries", "sealed", b"1", 2, after)


def test_a_keyring_takes_new_keys_up(annas: NewKeys, ring: Keyring) -> None:
    new = key_renewal.renew_keys(ANNA, annas.master, annas.sealed)
    assert not ring.take(new.sealed.data_keys)
    assert not ring.take(new.sealed.data_keys, bytes(32))
    assert (ring.epoch, ring.master) == (1, annas.master)
    old_record, old_subkey = ring.seal(ENTRY, "e", "c", b"1", 1, b"old"), ring._subkey(1, ENTRY)
    assert ring.take(new.sealed.data_keys, new.master)
    new_subkey = ring._subkey(2, ENTRY)
    assert (ring.epoch, ring.master) == (2, new.master)
    # An older master key that comes late changes nothing.
    assert ring.take(new.sealed.data_keys, annas.master)
    assert ring.take(annas.sealed.data_keys, annas.master)
    assert (ring.epoch, ring.master) == (2, new.master)
    assert ring.take(new.sealed.data_keys[1:])
    with pytest.raises(MissingEpoch):
        ring.open(ENTRY, "e", "c", b"1", 1, old_record)
    assert bytes(old_subkey) == bytes(32) != bytes(new_subkey)


def test_a_slot_takes_the_place_of_another_under_the_same_master_key(annas: NewKeys) -> None:
    code = recovery_code.new_recovery_code()
    fresh = slots.recovery_slot_key(ANNA, code)
    slot, sealed = key_renewal.replace_slot(
        ANNA, annas.master, annas.sealed, annas.slots[1].id, fresh
    )
    assert slots.open_slot(ANNA, slot, code) == annas.master
    assert [each.id for each in key_renewal.living_slots(ANNA, annas.master, sealed)] == [
        annas.slots[0].id,
        fresh.id,
    ]
    assert sealed.data_keys == annas.sealed.data_keys


def test_nothing_secret_is_printed(annas: NewKeys, ring: Keyring) -> None:
    shown = repr(annas) + str(ring) + repr(ring)
    assert annas.recovery_code not in shown
    assert repr(annas.master)[2:-1] not in shown
    assert annas.master.hex() not in shown


# --- Keyring ------------------------------------------------------------------------------------


@given(
    st.sampled_from(PURPOSES),
    st.binary(max_size=16),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=600),
)
def test_seal_and_open(purpose: Purpose, record_id: bytes, revision: int, text: bytes) -> None:
    ring = keys.open_keyring(ANNA, bytes(32), key_renewal.seal_new_keys(ANNA, bytes(32)))
    sealed = ring.seal(purpose, "entries", "sealed", record_id, revision, text)
    assert ring.open(purpose, "entries", "sealed", record_id, revision, sealed) == text
    for other in PURPOSES:
        if other != purpose:
            with pytest.raises(WrongKey):
                ring.open(other, "entries", "sealed", record_id, revision, sealed)
    with pytest.raises(WrongKey):
        ring.open(purpose, "entries", "sealed", record_id, revision ^ 1, sealed)


def test_a_new_epoch_seals_and_the_old_one_still_opens(annas: NewKeys, ring: Keyring) -> None:
    old = ring.seal(ENTRY, "entries", "sealed", b"1", 1, b"before")
    renewed = key_renewal.renew_keys(ANNA, annas.master, annas.sealed)
    rotated = keys.open_keyring(ANNA, renewed.master, renewed.sealed)
    assert (ring.epoch, rotated.epoch) == (1, 2)
    new = rotated.seal(ENTRY, "entries", "sealed", b"1", 2, b"after")
    assert rotated.open(ENTRY, "entries", "sealed", b"1", 1, old) == b"before"
    assert rotated.open(ENTRY, "entries", "sealed", b"1", 2, new) == b"after"
    with pytest.raises(MissingEpoch):
        ring.open(ENTRY, "entries", "sealed", b"1", 2, new)
    # A header that names another epoch that is known does not help either.
    with pytest.raises(WrongKey):
        rotated.open(ENTRY, "entries", "sealed", b"1", 1, old[:9] + b"\x02" + old[10:])
    assert rotated.blind("day", b"2026-11-20") == ring.blind("day", b"2026-11-20")


def test_data_keys_belong_to_one_user_and_epoch(annas: NewKeys) -> None:
    (data_key,) = annas.sealed.data_keys
    with pytest.raises(SealError):
        keys.open_keyring(BOB, annas.master, annas.sealed)
    with pytest.raises(SealError):
        keys.open_keyring(ANNA, bytes(32), annas.sealed)
    with pytest.raises(SealError):
        keys.open_keyring(
            ANNA, annas.master, replace(annas.sealed, data_keys=(replace(data_key, epoch=2),))
        )
    with pytest.raises(MissingEpoch):
        keys.open_keyring(ANNA, annas.master, replace(annas.sealed, data_keys=()))


def test_blind_index(annas: NewKeys, ring: Keyring) -> None:
    day = ring.blind("day", b"2026-11-20")
    assert len(day) == 32
    assert day == ring.blind("day", b"2026-11-20")
    bob = keys.open_keyring(BOB, annas.master, key_renewal.seal_new_keys(BOB, annas.master))
    others = [
        ring.blind("day", b"2026-11-21"),
        ring.blind("trace", b"2026-11-20"),
        ring.blind("da", b"y2026-11-20"),
        bob.blind("day", b"2026-11-20"),
    ]
    assert len({day, *others}) == 5


def test_a_closed_keyring_refuses_everything(annas: NewKeys) -> None:
    ring = keys.open_keyring(ANNA, annas.master, annas.sealed)
    sealed = ring.seal(ENTRY, "entries", "sealed", b"1", 1, b"text")
    ring.blind("day", b"")
    kept = [
        ring._master,
        ring._index_key,
        *ring._subkeys.values(),
        *ring._data_keys.values(),
        *ring._blind_keys.values(),
    ]
    assert len(kept) == 5
    assert all(any(key) for key in kept)
    ring.close()
    ring.close()
    assert not any(any(key) for key in kept)
    uses: list[Callable[[], object]] = [
        lambda: ring.seal(ENTRY, "entries", "sealed", b"1", 1, b"text"),
        lambda: ring.open(ENTRY, "entries", "sealed", b"1", 1, sealed),
        lambda: ring.blind("day", b""),
        lambda: ring.blind("new", b""),
        lambda: ring.master,
    ]
    for use in uses:
        with pytest.raises(KeyringClosed):
            use()
    assert not issubclass(KeyringClosed, SealError)
    assert issubclass(KeyringClosed, VaultError)


def test_closing_while_sealing_never_seals_under_zeros(
    annas: NewKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst moment: the subkey is zeroed after it was looked up and before it is used."""
    ring = keys.open_keyring(ANNA, annas.master, annas.sealed)
    really_seal = keys.seal

    def lock_first(*args: object, **kwargs: object) -> bytes:
        ring.close()
        return really_seal(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(keys, "seal", lock_first)
    with pytest.raises(KeyringClosed):
        ring.seal(ENTRY, "entries", "sealed", b"1", 1, b"text")


def test_many_threads_and_a_lock(annas: NewKeys) -> None:
    ring = keys.open_keyring(ANNA, annas.master, annas.sealed)
    check = keys.open_keyring(ANNA, annas.master, annas.sealed)
    results: list[bytes] = []
    surprises: list[BaseException] = []

    def work() -> None:
        try:
            for number in range(20_000):
                sealed = ring.seal(PURPOSES[number % 9], "t", "c", b"", 0, b"text")
                results.append(sealed)
        except KeyringClosed:
            pass
        except VaultError as error:
            surprises.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(results) < 200 and any(thread.is_alive() for thread in threads):
        pass
    ring.close()
    for thread in threads:
        thread.join()
    assert not surprises
    assert results
    assert {
        check.open(PURPOSES[sealed[4] - 1], "t", "c", b"", 0, sealed) for sealed in results
    } == {b"text"}


def test_keys_are_not_pickled(ring: Keyring) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(ring, protocol)


# --- Sessions -----------------------------------------------------------------------------------


def test_session_rows() -> None:
    token, boot, master = os.urandom(32), os.urandom(32), os.urandom(32)
    session = session_keys.session_id_of(token)
    sealed = session_keys.seal_for_session(ANNA, session, token, boot, master)
    assert session_keys.open_from_session(ANNA, session, token, boot, sealed) == master
    assert token not in sealed + session
    for attempt in (
        (BOB, session, token, boot),
        (ANNA, session_keys.session_id_of(boot), token, boot),
        (ANNA, session, boot, boot),
        (ANNA, session, token, token),
        (ANNA, session, token + boot[:1], boot),
    ):
        with pytest.raises(WrongKey):
            session_keys.open_from_session(*attempt, sealed)
    with pytest.raises(WrongKey):
        session_keys.open_from_cookie(ANNA, session, boot, sealed)


def test_session_cookies() -> None:
    token, boot, master = os.urandom(32), os.urandom(32), os.urandom(32)
    session = session_keys.session_id_of(token)
    sealed = session_keys.seal_for_cookie(ANNA, session, boot, master)
    assert session_keys.open_from_cookie(ANNA, session, boot, sealed) == master
    assert len(sealed) == 346
    for attempt in (
        (BOB, session, boot),
        (ANNA, session_keys.session_id_of(boot), boot),
        (ANNA, session, token),
    ):
        with pytest.raises(WrongKey):
            session_keys.open_from_cookie(*attempt, sealed)
    with pytest.raises(UnknownFormat):
        session_keys.open_from_cookie(ANNA, session, boot, b"")


def test_weak_session_secrets_are_a_mistake_of_ours() -> None:
    for token, boot in ((b"short", bytes(32)), (bytes(32), b"short")):
        with pytest.raises(ValueError, match="boot secret"):
            session_keys.seal_for_session(ANNA, b"", token, boot, bytes(32))
    with pytest.raises(ValueError, match="boot secret"):
        session_keys.seal_for_cookie(ANNA, b"", b"", bytes(32))


def test_a_data_key_that_does_not_open_takes_no_other_with_it(annas: NewKeys) -> None:
    renewed = key_renewal.renew_keys(ANNA, annas.master, annas.sealed)
    first, second = renewed.sealed.data_keys
    junk = keys.SealedDataKey(2, os.urandom(len(second.sealed)))
    for data_keys, epoch in (
        ((first, junk), 1),
        ((replace(first, sealed=junk.sealed), second), 2),
    ):
        ring = keys.open_keyring(ANNA, renewed.master, replace(renewed.sealed, data_keys=data_keys))
        assert ring.epoch == epoch
        assert ring.take(data_keys)  # and goes on with what opens
        assert ring.epoch == epoch
    ring = keys.open_keyring(ANNA, renewed.master, renewed.sealed)
    assert ring.take((replace(first, sealed=junk.sealed), second))
    with pytest.raises(SealError):
        keys.open_keyring(ANNA, renewed.master, replace(renewed.sealed, data_keys=(junk,)))
