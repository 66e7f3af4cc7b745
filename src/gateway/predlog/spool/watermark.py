"""How far a spool was acknowledged, and how far frames of it may have been sent: one small file."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.predlog.spool.disk import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.predlog.spool.disk import SpoolDisk

WATERMARK_FILE: Final = "watermark"
_MAX_BYTES: Final = 512


class Watermark(NamedTuple):
    """What is remembered beside the segments.

    Attributes:
        number: segment of the first record that is not acknowledged.
        offset: its first byte there.
        position: rows before it.
        begun: no segment beyond this one has ever been read to be sent.
    """

    number: int = 0
    offset: int = 0
    position: int = 0
    begun: int = 0


def write_watermark(disk: SpoolDisk, directory: Path, mark: Watermark) -> None:
    """Replace the file, durably."""
    text = json.dumps(mark._asdict()).encode()
    replace_file(disk, directory / WATERMARK_FILE, b"%08x %s\n" % (zlib.crc32(text), text))


def read_watermark(disk: SpoolDisk, directory: Path) -> Watermark | None:
    """Return what was written last; None when that cannot be known: then all is sent again."""
    if WATERMARK_FILE not in disk.names(directory):
        return None
    descriptor = disk.open(directory / WATERMARK_FILE)
    try:
        check, _, text = disk.read_at(descriptor, _MAX_BYTES, 0).rstrip(b"\n").partition(b" ")
    finally:
        disk.close(descriptor)
    if check != b"%08x" % zlib.crc32(text):
        return None
    return Watermark(**json.loads(text))
