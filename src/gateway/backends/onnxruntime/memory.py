"""Measures what a load takes: bytes allocated by this process, or on an accelerator, from before to after."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from gateway.core.types import Device

    Probe: TypeAlias = Callable[[Device], int | None]
    """Returns the bytes in use on a device, None where that cannot be told."""

_CUDA_RUNTIMES: Final = ("libcudart.so.13", "libcudart.so.12")
_PAGE_BYTES: Final = 4096
_ARENA_MAX: Final = -8  # M_ARENA_MAX of malloc.h


@dataclass(slots=True)
class Measured:
    """What was found when the measured part is over: bytes more in use; 0 where nothing can be told."""

    nbytes: int = 0


class MemoryMeter:
    """Measures loads from any thread; two at once tell nothing of either, and are found to have taken 0.

    The figure is the allocator's, so that memory that was freed before and is used again counts: resident
    memory would not grow by it. What requests allocate meanwhile counts too: a measurement is one of some
    megabytes at best, and the smallest of several is the best.

    Args:
        probe: tells the bytes in use.
    """

    def __init__(self, probe: Probe | None = None) -> None:
        self._probe = probe or used_bytes
        self._guard = threading.Lock()
        self._running = 0
        self._begun = 0

    @contextlib.contextmanager
    def measuring(self, device: Device) -> Iterator[Measured]:
        """Measure what runs inside; the result is there when it is over."""
        measured = Measured()
        with self._guard:
            self._running += 1
            self._begun += 1
            alone, begun = self._running == 1, self._begun
        before = self._probe(device) if alone else None
        try:
            yield measured
            if before is not None and begun == self._begun and (after := self._probe(device)) is not None:
                measured.nbytes = max(0, after - before)
        finally:
            with self._guard:
                self._running -= 1


def used_bytes(device: Device) -> int | None:
    """Return the bytes in use: of a CUDA device by all processes, of main memory by this one."""
    if device.kind == "cuda":
        return _cuda_bytes(device.ordinal)
    return _heap_bytes() or _resident_bytes()


def return_freed() -> None:
    """Give memory that was freed back to the system, where the C library is glibc; some milliseconds.

    Otherwise a load leaves behind what it needed only meanwhile, 3.6 MB beside the 6.3 that a model of 5 MB
    holds, and weights that threads allocated in turn leave holes: loading and unloading models of 5 MB, ten
    at a time, left a process 243 MB larger, and with this after each unload 74.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def share_heaps(most: int) -> None:
    """Let all threads of this process together have no more than `most` heaps, where the C library is glibc.

    Else there are up to eight for each processor, and each keeps what its threads have freed last: after
    thirty swaps of a model of 200 MB a process was 43 MB larger. To be called before threads are started.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_ARENA_MAX, most)


class _HeapInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33 and later (mallinfo(3)); its figures are of all arenas together."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def _heap_bytes() -> int | None:
    """Return what the C allocator has given out; about 0.1 ms."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):  # another C library, or an older one
        return None
    mallinfo2.restype = _HeapInfo
    found = mallinfo2()
    return int(found.uordblks) + int(found.hblkhd)


def _resident_bytes() -> int | None:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return None


def _cuda_bytes(ordinal: int) -> int | None:
    """Return what is in use on a device; creates its context, which is no model's, if there is none yet."""
    runtime = _cuda_runtime()
    if runtime is None or runtime.cudaSetDevice(ordinal):
        return None
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    if runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)):
        return None
    return total.value - free.value


def _cuda_runtime() -> ctypes.CDLL | None:
    """Return the CUDA runtime that ONNX Runtime loaded."""
    for name in _CUDA_RUNTIMES:
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    return None
