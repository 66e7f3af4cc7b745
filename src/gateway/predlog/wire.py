"""Frames of the prediction log as bytes: the envelope that travels and lies in spools, and its batch.

A frame is written in one pass over its parts, so that large columns are copied once; the bytes are those of
the messages of protos/prediction_log.proto, which readers may parse with any library.
"""

from __future__ import annotations

import enum
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from gateway._proto import prediction_log_pb2 as pb
from gateway.predlog.rows import SCHEMA_VERSION, Accounting, Frame, Produced
from gateway.predlog.wire_fields import MalformedFrame as MalformedFrame  # noqa: PLC0414 - one of this module's names
from gateway.predlog.wire_fields import Refused as Refused  # noqa: PLC0414 - likewise
from gateway.predlog.wire_fields import bytes_field
from gateway.predlog.wire_rows import decode_rows, row_parts

if TYPE_CHECKING:
    from gateway.predlog.rows import RowBatch

MAX_FRAME_BYTES: Final = 4 << 20
"""Largest frame, and largest batch after inflating; gRPC's own limit of a message is the same."""

MAX_ACCOUNTS: Final = 65_536
"""Entries of one frame's accounting."""

MAX_NAME: Final = 256
"""Characters of a producer's name, of an arm and of a reason."""

_PAYLOAD_FIELD: Final = 8


class Codec(enum.IntEnum):
    """How a payload is compressed."""

    NONE = 0
    DEFLATE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedFrame:
    """The envelope of one frame; its batch is decoded when asked for, after duplicates were told apart.

    Attributes:
        schema_version: of the format.
        producer: the gateway's name.
        epoch: start of its process; a later one is greater.
        sequence: of the frame; of the last frame sent where this one carries accounting alone.
        rows: rows that the payload is said to hold.
        crc32: of the payload as it travels.
        codec: number of the codec, perhaps one that nobody knows.
        payload: as it travels; empty in a frame that carries accounting alone.
        accounting: what became of the producer's rows; every figure only grows, so that of two frames the
            larger one holds.
    """

    schema_version: int
    producer: str
    epoch: int
    sequence: int
    rows: int
    crc32: int
    codec: int
    payload: bytes
    accounting: Accounting

    def batch(self) -> RowBatch | None:
        """Check and decode the payload; None where the frame carries accounting alone.

        Returns:
            A batch whose arrays are read-only views over the payload.

        Raises:
            MalformedFrame: the schema is unknown, the checksum is wrong, or the payload does not hold what it
                says.
        """
        if self.schema_version != SCHEMA_VERSION:
            raise MalformedFrame(Refused.SCHEMA, f"schema version {self.schema_version} is unknown")
        if not self.payload:
            return None
        if zlib.crc32(self.payload) != self.crc32:
            raise MalformedFrame(Refused.CRC, "the payload's checksum is wrong")
        batch = decode_payload(self.payload, self.codec)
        if batch.rows != self.rows:
            raise MalformedFrame(Refused.MALFORMED, f"{self.rows} rows announced, {batch.rows} there")
        return batch


@dataclass(frozen=True, slots=True)
class Producer:
    """Whose frames they are.

    Attributes:
        name: the gateway's, stable over restarts.
        epoch: start of its process; a later one is greater.
    """

    name: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Payload:
    """A batch as it travels.

    Attributes:
        rows: in it.
        data: serialized, and compressed by `codec`.
        codec: how.
    """

    rows: int = 0
    data: bytes = b""
    codec: Codec = Codec.NONE


def encode(batch: RowBatch, codec: Codec = Codec.NONE) -> bytes:
    """Return a batch as the data of a payload."""
    return _compressed(row_parts(batch), codec)


def frame_bytes(
    producer: Producer,
    sequence: int,
    payload: Payload,
    accounting: Accounting | None = None,
) -> bytes:
    """Return a serialized LogFrame.

    Args:
        producer: whose it is.
        sequence: of the frame; where it carries accounting alone, of the last frame sent.
        payload: of the frame; without data: accounting alone.
        accounting: of the producer, or of a lane.
    """
    head = pb.LogFrame(
        schema_version=SCHEMA_VERSION,
        producer=producer.name,
        epoch=producer.epoch,
        sequence=sequence,
        rows=payload.rows,
        crc32=zlib.crc32(payload.data) if payload.data else 0,
        codec=payload.codec.name,
        accounting=None if accounting is None else _accounting_message(accounting),
    )
    return b"".join([head.SerializeToString(), *bytes_field(_PAYLOAD_FIELD, payload.data)])


def frame_of(
    batch: RowBatch,
    producer: Producer,
    sequence: int,
    codec: Codec = Codec.NONE,
    accounting: Accounting | None = None,
) -> Frame:
    """Return the frame of a batch; arguments as of `frame_bytes`."""
    payload = Payload(batch.rows, encode(batch, codec), codec)
    return Frame(
        producer=producer.name,
        epoch=producer.epoch,
        sequence=sequence,
        rows=batch.rows,
        model=batch.model,
        version=batch.version,
        data=frame_bytes(producer, sequence, payload, accounting),
    )


def accounting_frame(producer: Producer, sequence: int, accounting: Accounting) -> Frame:
    """Return a frame that carries accounting alone.

    Args:
        producer: whose it is.
        sequence: of the last frame sent; 0 before the first.
        accounting: of a lane.
    """
    data = frame_bytes(producer, sequence, Payload(), accounting)
    return Frame(producer=producer.name, epoch=producer.epoch, sequence=sequence, rows=0, data=data)


def decode_frame(data: bytes) -> DecodedFrame:
    """Decode an envelope; the payload is neither checked nor decoded yet.

    Raises:
        MalformedFrame: it is no LogFrame, or larger than MAX_FRAME_BYTES.
    """
    if len(data) > MAX_FRAME_BYTES:
        raise MalformedFrame(Refused.TOO_LARGE, f"{len(data)} bytes, {MAX_FRAME_BYTES} are allowed")
    try:
        message = pb.LogFrame.FromString(data)
    except DecodeError as exc:
        raise MalformedFrame(Refused.MALFORMED, "no LogFrame") from exc
    if not 0 < len(message.producer) <= MAX_NAME:
        raise MalformedFrame(Refused.MALFORMED, f"a producer of {len(message.producer)} characters")
    return DecodedFrame(
        schema_version=message.schema_version,
        producer=message.producer,
        epoch=message.epoch,
        sequence=message.sequence,
        rows=message.rows,
        crc32=message.crc32,
        codec=int(message.codec),
        payload=message.payload,
        accounting=_accounting(message.accounting),
    )


def decode_payload(payload: bytes, codec: int = Codec.NONE) -> RowBatch:
    """Decode a batch; its arrays are read-only views over (the inflated) payload's columns.

    Raises:
        MalformedFrame: it does not hold what it says, or inflates beyond MAX_FRAME_BYTES.
    """
    if codec == Codec.DEFLATE:
        payload = _inflated(payload)
    elif codec != Codec.NONE:
        raise MalformedFrame(Refused.SCHEMA, f"codec {codec} is unknown")
    try:
        message = pb.RowBatch.FromString(payload)
    except DecodeError as exc:
        raise MalformedFrame(Refused.MALFORMED, "no RowBatch") from exc
    return decode_rows(message)


def _compressed(parts: list[bytes | memoryview], codec: Codec) -> bytes:
    if codec is Codec.NONE:
        return b"".join(parts)
    deflate = zlib.compressobj(level=1)
    return b"".join([*(deflate.compress(part) for part in parts), deflate.flush()])


def _inflated(payload: bytes) -> bytes:
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(payload, MAX_FRAME_BYTES)
    except zlib.error as exc:
        raise MalformedFrame(Refused.MALFORMED, "the payload cannot be inflated") from exc
    if inflate.unconsumed_tail:
        raise MalformedFrame(Refused.TOO_LARGE, f"the payload inflates beyond {MAX_FRAME_BYTES} bytes")
    if not inflate.eof or inflate.unused_data:
        raise MalformedFrame(Refused.MALFORMED, "the payload's compressed data ends too early or too late")
    return data


def _accounting_message(accounting: Accounting) -> pb.Accounting:
    return pb.Accounting(
        produced=[
            pb.Accounting.Produced(model=p.model, version=p.version, arm=p.arm, rows=p.rows)
            for p in accounting.produced
        ],
        dropped=[pb.Accounting.Drops(reason=reason, rows=rows) for reason, rows in accounting.dropped],
        at_ns=accounting.at_ns,
    )


def _accounting(message: pb.Accounting) -> Accounting:
    if len(message.produced) + len(message.dropped) > MAX_ACCOUNTS:
        raise MalformedFrame(Refused.TOO_LARGE, f"more than {MAX_ACCOUNTS} entries of accounting")
    return Accounting(
        produced=tuple([Produced(p.model, p.version, p.arm, p.rows) for p in message.produced]),
        dropped=tuple([(drop.reason, drop.rows) for drop in message.dropped]),
        at_ns=message.at_ns,
    )
