"""A frame as it lies in a segment: a header that says what it is, and the frame.

A record's position is the number of rows written to the spool before it. So the rows of a stretch that
cannot be read are known exactly: the next record's position less the end of the one before.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.predlog.rows import Frame

if TYPE_CHECKING:
    from gateway.predlog.spool.disk import SpoolDisk

MAGIC: Final = b"PLF\x01"
_HEADER: Final = struct.Struct("<4sIIQQQIqQHH")
_CHECK: Final = struct.Struct("<I")
HEADER_BYTES: Final = _HEADER.size + _CHECK.size
MAX_FRAME_BYTES: Final = 64 << 20
"""Longest frame; a header that says more is none."""
_SEARCH_BYTES: Final = 1 << 20


class Header(NamedTuple):
    """What a record's header says.

    Attributes:
        body_bytes: length of what follows the header: producer, model, frame.
        body_crc: CRC-32 of that.
        epoch: the frame's.
        sequence: the frame's.
        position: rows written to the spool before this record.
        rows: the frame's.
        time_ns: wall clock when it was written.
        version: the frame's model version.
        producer_bytes: length of the producer's name.
        model_bytes: length of the model's.
    """

    body_bytes: int
    body_crc: int
    epoch: int
    sequence: int
    position: int
    rows: int
    time_ns: int
    version: int
    producer_bytes: int
    model_bytes: int

    @property
    def end(self) -> int:
        """Position of the record after this one."""
        return self.position + self.rows

    @property
    def record_bytes(self) -> int:
        """Length of header and body."""
        return HEADER_BYTES + self.body_bytes


def encode_record(frame: Frame, position: int, time_ns: int) -> bytes:
    """Return a frame as a record."""
    producer, model = frame.producer.encode(), frame.model.encode()
    body = b"".join((producer, model, frame.data))
    fixed = _HEADER.pack(
        MAGIC,
        len(body),
        zlib.crc32(body),
        frame.epoch,
        frame.sequence,
        position,
        frame.rows,
        time_ns,
        frame.version,
        len(producer),
        len(model),
    )
    return b"".join((fixed, _CHECK.pack(zlib.crc32(fixed)), body))


def decode_header(data: bytes) -> Header | None:
    """Return what the header at the start of `data` says; None when there is none."""
    if len(data) < HEADER_BYTES or not data.startswith(MAGIC):
        return None
    (check,) = _CHECK.unpack_from(data, _HEADER.size)
    if zlib.crc32(data[: _HEADER.size]) != check:
        return None
    header = Header(*_HEADER.unpack_from(data)[1:])
    sound = header.producer_bytes + header.model_bytes <= header.body_bytes <= MAX_FRAME_BYTES
    return header if sound else None


def decode_body(header: Header, body: bytes) -> Frame | None:
    """Return the frame; None when its checksum is wrong or bytes are missing."""
    if len(body) != header.body_bytes or zlib.crc32(body) != header.body_crc:
        return None
    names = header.producer_bytes + header.model_bytes
    return Frame(
        producer=body[: header.producer_bytes].decode(),
        epoch=header.epoch,
        sequence=header.sequence,
        rows=header.rows,
        model=body[header.producer_bytes : names].decode(),
        version=header.version,
        data=body[names:],
    )


def read_header(disk: SpoolDisk, descriptor: int, offset: int, end: int) -> Header | None:
    """Return the header at an offset of a file that ends at `end`; None when there is none, or half of it."""
    if offset + HEADER_BYTES > end:
        return None
    return decode_header(disk.read_at(descriptor, HEADER_BYTES, offset))


def find_header(disk: SpoolDisk, descriptor: int, offset: int, end: int) -> tuple[int, Header] | None:
    """Return where the first sound header from an offset on is, and what it says; None when there is none."""
    while offset + HEADER_BYTES <= end:
        # Windows overlap by a header, so that none is missed at a seam.
        window = disk.read_at(descriptor, min(_SEARCH_BYTES, end - offset), offset)
        at = window.find(MAGIC)
        while 0 <= at <= len(window) - HEADER_BYTES:
            header = decode_header(window[at : at + HEADER_BYTES])
            if header is not None:
                return offset + at, header
            at = window.find(MAGIC, at + 1)
        offset += max(len(window) - HEADER_BYTES + 1, 1)
    return None
