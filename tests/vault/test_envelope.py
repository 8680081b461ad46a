import math
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamora.persistence.schema import ENTRY, PURPOSES
from llamora.vault.envelope import (
    OVERHEAD_BYTES,
    Context,
    Damaged,
    Purpose,
    SealError,
    UnknownFormat,
    WrongHeader,
    WrongKey,
    open_sealed,
    padded_size,
    seal,
    sealed_epoch,
)
from tests.vault import second_implementation as second

SUBKEY = bytes(range(32))
CONTEXT = Context(b"u" * 16, "entries", "sealed", b"r" * 16, 1)
TEXT = b"a line that nobody else reads"
SEALED = seal(SUBKEY, ENTRY, 7, CONTEXT, TEXT)

names = st.text(max_size=20).filter(lambda name: name.isprintable())
contexts = st.builds(
    Context,
    user_id=st.binary(max_size=40),
    table=names,
    column=names,
    record_id=st.binary(max_size=40),
    revision=st.integers(0, 2**64 - 1),
)
purposes = st.sampled_from(PURPOSES)
epochs = st.integers(0, 2**32 - 1)
subkeys = st.binary(min_size=32, max_size=32)


def open_it(sealed: bytes, context: Context = CONTEXT, subkey: bytes = SUBKEY) -> bytes:
    return open_sealed(subkey, ENTRY, 7, context, sealed)


def flipped(at: int, bit: int = 0) -> bytes:
    changed = bytearray(SEALED)
    changed[at] ^= 1 << bit
    return bytes(changed)


@given(subkeys, purposes, epochs, contexts, st.binary(max_size=3000))
def test_round_trip_and_size(
    subkey: bytes, purpose: Purpose, epoch: int, context: Context, text: bytes
) -> None:
    sealed = seal(subkey, purpose, epoch, context, text)
    assert open_sealed(subkey, purpose, epoch, context, sealed) == text
    assert sealed_epoch(sealed) == epoch
    assert len(sealed) == padded_size(len(text)) + OVERHEAD_BYTES
    ctx = second.place(
        context.user_id, context.table, context.column, context.record_id, context.revision
    )
    assert second.unseal(subkey, purpose.number, epoch, ctx, sealed) == text


def test_a_megabyte_of_any_bytes() -> None:
    text = os.urandom(1_000_000)
    assert open_it(seal(SUBKEY, ENTRY, 7, CONTEXT, text)) == text


def test_equal_texts_look_different() -> None:
    other = seal(SUBKEY, ENTRY, 7, CONTEXT, TEXT)
    # Everything but the header comes out new: salt, commitment, ciphertext, tag.
    assert other[:10] == SEALED[:10]
    assert all(
        other[start : start + 16] != SEALED[start : start + 16]
        for start in range(10, len(other), 16)
    )
    assert TEXT not in SEALED


@given(st.integers(0, 2_000_000))
def test_padding(size: int) -> None:
    padded = padded_size(size)
    length = size + 4
    assert padded >= max(256, length)
    assert padded_size(size + 1) >= padded
    # A padded size is stable: a text that fills it is not padded further.
    assert padded_size(padded - 4) == padded
    if length > 256:
        assert padded - length <= 0.12 * length
        # Padmé keeps at most floor(log2 E) + 1 significant bits after the leading one.
        exponent = math.floor(math.log2(padded))
        assert padded % 2 ** (exponent - math.floor(math.log2(exponent)) - 1) == 0


def test_few_padded_sizes_exist() -> None:
    # At most 16 per doubling up to 64 kB, 32 in the next.
    assert len({padded_size(size) for size in range(100_000)}) <= 1 + 8 * 16 + 32


@pytest.mark.parametrize("at", range(len(SEALED)))
def test_every_changed_byte_is_found(at: int) -> None:
    if at in {4, *range(6, 10)}:
        expected = WrongHeader
    elif at < 10:
        expected = UnknownFormat
    elif at < 74:
        expected = WrongKey
    else:
        expected = Damaged
    for bit in range(8):
        with pytest.raises(SealError) as error:
            open_it(flipped(at, bit))
        assert type(error.value) is expected


@pytest.mark.parametrize("size", [*range(0, 350, 7), 345])
def test_cut_short(size: int) -> None:
    with pytest.raises(UnknownFormat):
        open_it(SEALED[:size])
    with pytest.raises(UnknownFormat):
        sealed_epoch(SEALED[:size])


@given(st.integers(1, 900), st.binary(min_size=1, max_size=300))
def test_cut_or_grown_long_record(cut: int, more: bytes) -> None:
    sealed = seal(SUBKEY, ENTRY, 7, CONTEXT, bytes(1000))
    with pytest.raises((UnknownFormat, Damaged)):
        open_it(sealed[:-cut])
    with pytest.raises(Damaged):
        open_it(sealed + more)


@given(contexts, contexts)
def test_a_record_opens_in_its_own_place_only(here: Context, there: Context) -> None:
    sealed = seal(SUBKEY, ENTRY, 7, here, TEXT)
    if here == there:
        assert open_it(sealed, there) == TEXT
    else:
        with pytest.raises(WrongKey):
            open_it(sealed, there)


@pytest.mark.parametrize(
    "moved",
    [
        replace(CONTEXT, user_id=b"v" * 16),
        replace(CONTEXT, table="tags"),
        replace(CONTEXT, column="sealed2"),
        replace(CONTEXT, record_id=b"s" * 16),
        replace(CONTEXT, revision=2),
        replace(CONTEXT, table="sealed", column="entries"),
        replace(CONTEXT, user_id=CONTEXT.record_id, record_id=CONTEXT.user_id),
        replace(CONTEXT, table="entriess", column="ealed"),
        replace(CONTEXT, user_id=b"u" * 17, table="ntries"),
        replace(CONTEXT, record_id=b""),
    ],
)
def test_moved_records(moved: Context) -> None:
    with pytest.raises(WrongKey):
        open_it(SEALED, moved)


@given(contexts, contexts)
def test_no_two_places_read_alike(one: Context, other: Context) -> None:
    assert (one.encode() == other.encode()) == (one == other)


@given(subkeys)
def test_wrong_key(subkey: bytes) -> None:
    if subkey != SUBKEY:
        with pytest.raises(WrongKey) as error:
            open_it(SEALED, subkey=subkey)
        assert type(error.value) is WrongKey


@given(st.sampled_from([p for p in PURPOSES if p != ENTRY]), epochs.filter(lambda e: e != 7))
def test_other_purpose_or_epoch(purpose: Purpose, epoch: int) -> None:
    with pytest.raises(WrongHeader):
        open_sealed(SUBKEY, purpose, 7, CONTEXT, SEALED)
    with pytest.raises(WrongHeader):
        open_sealed(SUBKEY, ENTRY, epoch, CONTEXT, SEALED)


@given(st.binary(max_size=1000))
def test_anything_else_is_refused_as_unknown(junk: bytes) -> None:
    with pytest.raises(UnknownFormat):
        open_it(junk)


@given(st.binary(min_size=252, max_size=252), st.integers(0, 2**32 - 1))
def test_padding_is_checked(rest: bytes, length: int) -> None:
    """Somebody who has the key but not this program cannot hide bytes in the padding."""
    padded = length.to_bytes(4, "big") + rest
    sealed = second.seal_padded(SUBKEY, 1, 7, CONTEXT.encode(), padded, bytes(32))
    if length <= 252 and not any(rest[length:]):
        assert open_it(sealed) == rest[:length]
    else:
        with pytest.raises(Damaged):
            open_it(sealed)


def test_unknown_formats_that_somebody_sealed_well() -> None:
    """A right key does not help a record of another version, suite or flag."""
    for header in (
        b"LL\x02\x01\x01\x00",
        b"LL\x01\x02\x01\x00",
        b"LL\x01\x01\x01\x01",
        b"XX\x01\x01\x01\x00",
    ):
        sealed = second.seal_padded(
            SUBKEY, 1, 7, CONTEXT.encode(), second.pad(TEXT), bytes(32), header + b"\0\0\0\x07"
        )
        with pytest.raises(UnknownFormat):
            open_it(sealed)
        with pytest.raises(UnknownFormat):
            sealed_epoch(sealed)


def test_messages_tell_nothing() -> None:
    broken = [
        SEALED[:9],
        flipped(0),
        flipped(2),
        flipped(3),
        flipped(4),
        flipped(5),
        flipped(9),
        flipped(20),
    ]
    for sealed in [*broken, flipped(100)]:
        with pytest.raises(SealError) as error:
            open_it(sealed)
        message = str(error.value)
        assert message.isascii()
        assert not any(character.isdigit() for character in message)
        assert "entries" not in message


def test_a_short_key_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        seal(bytes(16), ENTRY, 1, CONTEXT, TEXT)
    with pytest.raises(OverflowError):
        seal(SUBKEY, ENTRY, 1, replace(CONTEXT, revision=-1), TEXT)
