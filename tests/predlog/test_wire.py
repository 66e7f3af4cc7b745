"""The wire format: what is written is read again, and what is malformed is refused by the one error."""

from __future__ import annotations

import zlib
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway._proto import prediction_log_pb2 as pb
from gateway.predlog.rows import Accounting, Column, ColumnKind, Produced, Role, RowBatch
from gateway.predlog.wire import (
    MAX_FRAME_BYTES,
    Codec,
    MalformedFrame,
    Payload,
    Producer,
    Refused,
    accounting_frame,
    decode_frame,
    decode_payload,
    encode,
    frame_bytes,
    frame_of,
)
from tests.properties import examples

if TYPE_CHECKING:
    from gateway.core.types import Array

PRODUCER = Producer("gateway-1", 9)
ACCOUNTING = Accounting((Produced("m", 1, "canary", 12),), (("ring_full", 3), ("sampled", 4)), 77)
DTYPES = ("?", "u1", "i1", "<u2", "<i4", "<i8", "<u8", "<f2", "<f4", "<f8")


def columns(draw: st.DrawFn, rows: int) -> tuple[Column, ...]:
    found: list[Column] = []
    for place in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(ColumnKind))
        width = draw(st.integers(1, 5))
        random = np.random.default_rng(draw(st.integers(0, 99)))
        dictionary: tuple[bytes, ...] = ()
        if kind is ColumnKind.CATEGORY:
            dictionary = tuple(draw(st.lists(st.binary(max_size=8), max_size=4, unique=True)))
            values = random.integers(-1, len(dictionary), (rows, width)).astype(np.int32)
        elif kind is ColumnKind.PROJECTION:
            values = random.standard_normal((rows, width)).astype(np.float32)
        else:
            values = random.integers(0, 2, (rows, width)).astype(draw(st.sampled_from(DTYPES)))
        labels = tuple(f"l{i}" for i in range(width)) if draw(st.booleans()) else ()
        found.append(Column(f"c{place}", draw(st.sampled_from(Role)), kind, values, dictionary, labels))
    return tuple(found)


@st.composite
def batches(draw: st.DrawFn) -> RowBatch:
    rows = draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    arms = tuple(draw(st.lists(st.text(max_size=5), min_size=1, max_size=3, unique=True)))
    statuses = tuple(draw(st.lists(st.sampled_from(["", "BackendError"]), min_size=1, unique=True)))
    return RowBatch(
        model=draw(st.text(min_size=1, max_size=20)),
        version=draw(st.integers(0, 2**63)),
        digest=draw(st.text(max_size=10)),
        policy="p",
        rows=rows,
        keys=tuple(draw(st.lists(st.binary(max_size=20), min_size=rows, max_size=rows))),
        key_hashes=random.integers(0, 2**64, rows, dtype=np.uint64),
        row_indexes=random.integers(0, 9, rows, dtype=np.uint32),
        arrived_ns=random.integers(0, 2**62, rows),
        done_ns=random.integers(0, 2**62, rows),
        queue_us=random.integers(0, 2**32, rows, dtype=np.uint32),
        infer_us=random.integers(0, 2**32, rows, dtype=np.uint32),
        arms=arms,
        arm_codes=random.integers(0, len(arms), rows, dtype=np.uint8),
        statuses=statuses,
        status_codes=random.integers(0, len(statuses), rows, dtype=np.uint8),
        reasons=random.integers(0, 5, rows, dtype=np.uint8),
        weights=random.uniform(1, 100, rows).astype(np.float32),
        columns=columns(draw, rows),
        subject_hashes=random.integers(0, 2**64, rows, dtype=np.uint64),
    )


def assert_same(one: RowBatch, other: RowBatch) -> None:
    for field in fields(RowBatch):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name != "columns":
            assert np.array_equal(a, b), field.name
            continue
        assert len(a) == len(b)
        for mine, its in zip(a, b, strict=True):
            assert mine.values.dtype == its.values.dtype
            assert np.array_equal(mine.values, its.values, equal_nan=mine.values.dtype.kind == "f")
            assert replace(mine, values=its.values) == its


def plain(rows: int = 3) -> RowBatch:
    """A batch without surprises."""
    return RowBatch(
        model="m",
        version=1,
        digest="d",
        policy="p",
        rows=rows,
        keys=tuple(b"key%d" % row for row in range(rows)),
        key_hashes=np.arange(rows, dtype=np.uint64),
        row_indexes=np.zeros(rows, np.uint32),
        arrived_ns=np.arange(rows),
        done_ns=np.arange(rows),
        queue_us=np.zeros(rows, np.uint32),
        infer_us=np.zeros(rows, np.uint32),
        arms=("",),
        arm_codes=np.zeros(rows, np.uint8),
        statuses=("",),
        status_codes=np.zeros(rows, np.uint8),
        reasons=np.zeros(rows, np.uint8),
        weights=np.ones(rows, np.float32),
        columns=(
            Column("x", Role.INPUT, ColumnKind.NUMERIC, np.zeros((rows, 2), np.float32), (), ("a", "b")),
            Column("c", Role.SEGMENT, ColumnKind.CATEGORY, np.zeros((rows, 1), np.int32), (b"de", b"fr")),
        ),
        subject_hashes=np.zeros(rows, np.uint64),
    )


@given(batch=batches(), codec=st.sampled_from(Codec))
@settings(max_examples=examples(60))
def test_what_is_written_is_read_again(batch: RowBatch, codec: Codec) -> None:
    """Every field of a batch, its accounting and its envelope survive, compressed or not."""
    frame = frame_of(batch, PRODUCER, 5, codec, ACCOUNTING)
    read = decode_frame(frame.data)
    assert (read.producer, read.epoch, read.sequence, read.rows) == ("gateway-1", 9, 5, batch.rows)
    assert read.accounting == ACCOUNTING
    decoded = read.batch()
    assert decoded is not None
    assert_same(batch, decoded)


@given(batch=batches())
@settings(max_examples=examples(20))
def test_the_bytes_are_those_of_the_messages(batch: RowBatch) -> None:
    """What is written by hand is a RowBatch of the protocol: any library reads it and writes the same."""
    message = pb.RowBatch.FromString(encode(batch))
    assert message.rows == batch.rows
    assert_same(batch, decode_payload(message.SerializeToString()))


def test_arrays_are_read_only_views() -> None:
    """Nobody who reads a batch can write into it."""
    batch = decode_payload(encode(plain()))
    arrays: list[Array] = [batch.weights, batch.key_hashes, *(c.values for c in batch.columns)]
    assert not any(array.flags.writeable for array in arrays)


def test_a_frame_of_accounting_alone_has_no_batch() -> None:
    """Its sequence is that of the last frame sent."""
    frame = accounting_frame(PRODUCER, 4, ACCOUNTING)
    read = decode_frame(frame.data)
    assert (frame.rows, read.sequence, read.accounting, read.batch()) == (0, 4, ACCOUNTING, None)


def damaged(**changes: object) -> bytes:
    """A payload with some fields of the message replaced."""
    message = pb.RowBatch.FromString(encode(plain()))
    for name, value in changes.items():
        if isinstance(value, list):
            del getattr(message, name)[:]
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    return message.SerializeToString()


def with_column(**changes: object) -> bytes:
    message = pb.RowBatch.FromString(encode(plain()))
    for name, value in changes.items():
        if isinstance(value, list):
            del getattr(message.columns[1], name)[:]
            getattr(message.columns[1], name).extend(value)
        else:
            setattr(message.columns[1], name, value)
    return message.SerializeToString()


MALFORMED = {
    "no message": b"\xff\xff\xff",
    "no rows": damaged(rows=0),
    "more rows than there are": damaged(rows=4),
    "too many rows": damaged(rows=1 << 31),
    "no model": damaged(model=""),
    "a weight below one": damaged(weights=np.array([1, 0.5, 1], "<f4").tobytes()),
    "a weight that is no number": damaged(weights=np.array([1, np.nan, 1], "<f4").tobytes()),
    "an endless weight": damaged(weights=np.array([1, np.inf, 1], "<f4").tobytes()),
    "an unknown reason": damaged(reasons=b"\0\5\0"),
    "an arm without a name": damaged(arm_codes=b"\0\1\0"),
    "no statuses": damaged(statuses=[]),
    "key ends that fall": damaged(key_ends=np.array([9, 4, 12], "<u4").tobytes()),
    "key ends beyond the keys": damaged(key_ends=np.array([4, 8, 13], "<u4").tobytes()),
    "arms without end": damaged(arms=["a"] * 1000),
    "an unknown role": with_column(role="label"),
    "a nameless column": with_column(name=""),
    "a column named twice": with_column(name="x", role="input"),
    "a width that does not fit": with_column(width=2),
    "a width of nothing": with_column(width=0),
    "a width beyond all bounds": with_column(width=1 << 30),
    "a type that is none": with_column(dtype="O"),
    "a code without a category": with_column(dictionary=[]),
    "a code below -1": with_column(data=np.array([0, -2, 1], "<i4").tobytes()),
    "a category named twice": with_column(dictionary=[b"de", b"de"]),
    "labels that do not fit": with_column(labels=["a", "b"]),
    "a dictionary of numbers": with_column(kind="NUMERIC"),
}


@pytest.mark.parametrize("payload", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_batch_is_refused(payload: bytes) -> None:
    """Whatever is wrong, it is the one error, with a reason that may be a metric's label."""
    with pytest.raises(MalformedFrame) as refused:
        decode_payload(payload)
    assert refused.value.reason in {Refused.MALFORMED, Refused.TOO_LARGE}


def test_bools_that_are_none_are_refused() -> None:
    """A byte of 7 read as a bool would be neither true nor false."""
    column = Column("b", Role.INPUT, ColumnKind.NUMERIC, np.zeros((3, 1), np.bool_))
    message = pb.RowBatch.FromString(encode(replace(plain(), columns=(column,))))
    message.columns[0].data = b"\0\7\1"
    with pytest.raises(MalformedFrame):
        decode_payload(message.SerializeToString())


def reason_of(data: bytes) -> Refused:
    with pytest.raises(MalformedFrame) as refused:
        decode_frame(data).batch()
    return refused.value.reason


def test_frames_are_refused_by_reason() -> None:
    """A wrong checksum, an unknown schema or codec, too much, and no frame at all are told apart."""
    payload = encode(plain())
    good = frame_bytes(PRODUCER, 1, Payload(3, payload))
    message = pb.LogFrame.FromString(good)

    def changed(**values: object) -> bytes:
        copy = pb.LogFrame()
        copy.CopyFrom(message)
        for name, value in values.items():
            setattr(copy, name, value)
        return copy.SerializeToString()

    assert reason_of(changed(crc32=1)) is Refused.CRC
    assert reason_of(changed(schema_version=2)) is Refused.SCHEMA
    assert reason_of(changed(codec=9)) is Refused.SCHEMA
    assert reason_of(changed(rows=2)) is Refused.MALFORMED
    assert reason_of(changed(producer="")) is Refused.MALFORMED
    assert reason_of(b"\xff") is Refused.MALFORMED
    assert reason_of(b"\0" * (MAX_FRAME_BYTES + 1)) is Refused.TOO_LARGE


def test_what_inflates_without_end_is_refused() -> None:
    """A small payload that would become a huge one stops at the limit; a broken one is malformed."""
    bomb = zlib.compress(b"\0" * (MAX_FRAME_BYTES * 4))
    for data, reason in (
        (bomb, Refused.TOO_LARGE),
        (bomb[:50], Refused.MALFORMED),
        (b"no", Refused.MALFORMED),
    ):
        with pytest.raises(MalformedFrame) as refused:
            decode_payload(data, Codec.DEFLATE)
        assert refused.value.reason is reason


@given(
    place=st.integers(0, 10**6),
    byte=st.integers(0, 255),
    cut=st.integers(0, 60),
    data=st.one_of(st.none(), st.binary(max_size=200)),
)
@settings(max_examples=examples(300))
def test_any_bytes_are_read_or_refused(place: int, byte: int, cut: int, data: bytes | None) -> None:
    """Damage anywhere in a payload gives a batch or the one error, and nothing else."""
    payload = bytearray(encode(plain()) if data is None else data)
    if payload:
        payload[place % len(payload)] = byte
        del payload[len(payload) - cut :]
    try:
        batch = decode_payload(bytes(payload))
    except MalformedFrame:
        return
    assert all(len(column.values) == batch.rows for column in batch.columns)
