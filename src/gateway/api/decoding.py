"""Threads that decode request bodies which would hold the event loop up for long."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, Self, TypeVar

from gateway.core.errors import Overloaded
from gateway.core.types import Datatype

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from gateway.core.calls import CancelHook
    from gateway.core.types import ModelSignature

T = TypeVar("T")

HEAVY_BYTES: Final = 64 << 10
"""Text, or elements one by one, from this size on are decoded in a thread. It takes some milliseconds, a
hand-over to a thread 0.1. Plain raw tensors are views and take microseconds, whatever their size."""


class DecodePool:
    """Runs decoders beside the event loop.

    Few threads: they wait for each other (and the event loop for them, `serve.SWITCH_S` each) wherever Python
    code runs. Bodies that wait are bounded by their bytes.

    Args:
        threads: decoders at once.
        max_bytes: size of all bodies that wait or are being decoded; one alone is always taken.
    """

    def __init__(self, *, threads: int = 2, max_bytes: int = 1 << 30) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._max_bytes = max_bytes
        self._bytes = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop what waits, and wait for the decoders that run: a second or two."""
        stop = partial(self._executor.shutdown, wait=True, cancel_futures=True)
        await asyncio.get_running_loop().run_in_executor(None, stop)

    def begin(
        self, decode: Callable[[], T], size: int, then: Callable[[Callable[[], T]], CancelHook]
    ) -> CancelHook:
        """Decode, then go on on the event loop.

        Args:
            decode: runs in a thread; touches nothing that the event loop changes.
            size: bytes of the body.
            then: told the outcome, a function that returns or raises what `decode` did; returns what
                cancels the rest.

        Returns:
            What cancels whatever is under way: `then` is not called any more, or what it returned is. A
            decoder that runs already ends unseen.

        Raises:
            Overloaded: too many bytes wait.
        """
        return _Stages(self._start(decode, size), then).cancel

    async def run(self, decode: Callable[[], T], size: int) -> T:
        """Return what `decode` does; cancelling the caller drops it, as in `begin`.

        Raises:
            Overloaded: too many bytes wait.
        """
        return await self._start(decode, size)

    def _start(self, decode: Callable[[], T], size: int) -> asyncio.Future[T]:
        if self._bytes and self._bytes + size > self._max_bytes:
            raise Overloaded("too many large requests wait to be decoded", retry_after_s=1.0)
        future = asyncio.wrap_future(self._executor.submit(decode))
        self._bytes += size
        future.add_done_callback(lambda _: self._give_back(size))
        return future

    def _give_back(self, size: int) -> None:
        self._bytes -= size


class _Stages(Generic[T]):
    """A request that is decoded first and then goes on; cancelled in either stage."""

    def __init__(self, decoding: asyncio.Future[T], then: Callable[[Callable[[], T]], CancelHook]) -> None:
        self._decoding = decoding
        self._then = then
        self._cancelled = False
        self._cancel_rest: CancelHook | None = None
        decoding.add_done_callback(self._decoded)

    def cancel(self) -> None:
        """Cancel; a future that is done and whose callback has yet to run is no longer its own to cancel."""
        self._cancelled = True
        self._decoding.cancel()
        if self._cancel_rest is not None:
            self._cancel_rest()

    def _decoded(self, decoding: asyncio.Future[T]) -> None:
        if not self._cancelled and not decoding.cancelled():
            self._cancel_rest = self._then(decoding.result)


def takes_bytes(signature: ModelSignature) -> bool:
    """Whether any input is of BYTES, whose elements are read one by one even from raw data."""
    return any(spec.datatype is Datatype.BYTES for spec in signature.inputs)
