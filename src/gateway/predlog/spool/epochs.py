"""Epochs of a producer: each start of its process has a greater one, also when the clock was put back."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from gateway.predlog.spool.disk import LocalSpoolDisk, replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.predlog.spool.disk import SpoolDisk

_log = logging.getLogger(__name__)

EPOCH_FILE: Final = "epoch"
_MAX_EPOCH: Final = (1 << 63) - 1


def begin_epoch(directory: Path, now_ns: int, disk: SpoolDisk | None = None) -> int:
    """Return an epoch greater than all that were begun in this directory, and remember it.

    Args:
        directory: where the producer's spools are; made if it is not there.
        now_ns: wall clock, nanoseconds since the epoch; the result is this, or one more than the last.
        disk: where tests break it.

    Where it cannot be written down, that is logged and `now_ns` has to do.
    """
    disk = disk or LocalSpoolDisk()
    path = directory / EPOCH_FILE
    epoch = max(now_ns, 1)
    try:
        disk.make_directory(directory)
        epoch = max(epoch, _last(disk, path) + 1)
        replace_file(disk, path, b"%d\n" % epoch)
    except OSError as error:
        _log.warning("the prediction log's epoch cannot be written to %s: %s", path, error)
    return epoch


def _last(disk: SpoolDisk, path: Path) -> int:
    if path.name not in disk.names(path.parent):
        return 0
    descriptor = disk.open(path)
    try:
        text = disk.read_at(descriptor, 32, 0)
    finally:
        disk.close(descriptor)
    if not re.fullmatch(rb"[0-9]{1,19}\n", text) or int(text) >= _MAX_EPOCH:
        _log.warning("%s does not hold an epoch; it is begun anew by the clock", path)
        return 0
    return int(text)
