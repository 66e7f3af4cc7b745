"""Gathers a model's weights into huge pages, so that freeing them takes next to no time."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Range: TypeAlias = "tuple[int, int]"
"""Addresses [start, end)."""

LEAST_BYTES: Final = 32 << 20
"""What the C library allocates at this size or above is a mapping of its own, and goes back to the system as
soon as it is freed."""
_HUGE_BYTES: Final = 2 << 20
_PAGES: Final = 512
_COLLAPSE: Final = 25  # MADV_COLLAPSE, Linux 6.1
_POLICY: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MAPS: Final = Path("/proc/self/maps")


def large_mappings() -> list[Range]:
    """Return the writable memory of this process that is no file's, in pieces of `LEAST_BYTES` and above."""
    return list(_large(_lines()))


def gather(before: Iterable[Range]) -> int:
    """Gather what is large now and was not there before; return the bytes gathered.

    Destroying a session frees its memory while it holds the interpreter's lock: of 200 MB in small pages that
    took 6 to 11 ms, in huge ones 1.4. Takes some 100 ms for that; nothing is held up meanwhile. Only pages
    that are there are gathered, so that resident memory stays as it is. Where the kernel cannot, or the
    administrator does not want huge pages, nothing happens.

    Args:
        before: what `large_mappings` said before the model was loaded.
    """
    if not _wanted():
        return 0
    known = sorted(before)
    libc = ctypes.CDLL(None)
    return sum(_gathered(libc, piece) for new in large_mappings() for piece in _without(new, known))


def _gathered(libc: ctypes.CDLL, piece: Range) -> int:
    start, end = -(-piece[0] // _HUGE_BYTES) * _HUGE_BYTES, piece[1]
    present = (ctypes.c_ubyte * _PAGES)()
    done = 0
    for address in range(start, end - _HUGE_BYTES + 1, _HUGE_BYTES):
        at, size = ctypes.c_void_p(address), ctypes.c_size_t(_HUGE_BYTES)
        # The memory may be another's by now, or gone: the kernel then says so, or gathers that.
        if libc.mincore(at, size, present) or not all(page & 1 for page in present):
            continue
        if libc.madvise(at, size, _COLLAPSE) == 0:
            done += _HUGE_BYTES
    return done


def _wanted() -> bool:
    try:
        return "[never]" not in _POLICY.read_text()
    except OSError:
        return False


def _lines() -> list[str]:
    with contextlib.suppress(OSError):
        return _MAPS.read_text().splitlines()
    return []


def _large(lines: Iterable[str]) -> Iterator[Range]:
    for line in lines:
        fields = line.split()
        if len(fields) == 5 and fields[1] == "rw-p":  # a sixth would be a file, or a name of the kernel's
            start, end = (int(text, 16) for text in fields[0].split("-"))
            if end - start >= LEAST_BYTES:
                yield start, end


def _without(piece: Range, known: Iterable[Range]) -> Iterator[Range]:
    """Give the parts of a range that no range of `known`, ascending, covers."""
    at, end = piece
    for start, stop in known:
        if at < start < end:
            yield at, start
        if start < end:
            at = max(at, stop)
    if at < end:
        yield at, end
