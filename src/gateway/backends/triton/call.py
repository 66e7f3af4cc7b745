"""One request of a model as it is sent to an endpoint, perhaps to several in turn."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn

from gateway.backends.triton.codec import (
    OFF_LOOP_BYTES,
    WrongAnswer,
    check_complete,
    decode,
    encode,
    read,
    size_of,
)
from gateway.backends.triton.failures import RegionUnknown, ended_there, in_band
from gateway.core.remote import AttemptError, Outcome
from gateway.core.types import Datatype

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from gateway.backends.triton.codec import Answer, Target
    from gateway.backends.triton.connection import Asked, TritonConnection
    from gateway.backends.triton.shared_memory import Lease, Regions
    from gateway.core.errors import GatewayError
    from gateway.core.types import Array, Batch


class Call:
    """A batch on its way; encoded once for all the endpoints that it is sent to.

    Attributes:
        failures: the attempts that failed, in order.

    Args:
        batch: what to run.
        target: on what.
        asked: whom, for the connection.
        shares_memory: shared memory may be used.
    """

    def __init__(self, batch: Batch, target: Target, asked: Asked, *, shares_memory: bool) -> None:
        self.failures: list[AttemptError] = []
        self._batch = batch
        self._target = target
        self._asked = asked
        self._shares_memory = shares_memory
        self._message: bytes | None = None

    async def run(self, connection: TritonConnection, timeout_s: float | None) -> Answer:
        """Send it to an endpoint; return the answer, with every output wanted.

        Raises:
            GatewayError: as `TritonConnection.infer`.
        """
        try:
            if self._shares_memory and connection.regions is not None:
                answer = await self._through_memory(connection, connection.regions, timeout_s)
                if answer is not None:
                    return answer
            message = await self._encoded(timeout_s)
            body = await connection.infer(self._asked, message, timeout_s)
            return await self._answer(body)
        except AttemptError as error:
            self.failures.append(error)
            raise

    async def stream(
        self, connection: TritonConnection, timeout_s: float | None
    ) -> AsyncGenerator[Mapping[str, Array], None]:
        """Send it to an endpoint; give the outputs of each response. Closing calls it off.

        Raises:
            GatewayError: as `TritonConnection.infer`.
        """
        try:
            message = await self._encoded(timeout_s)
            async with aclosing(connection.stream_infer(self._asked, message, timeout_s)) as responses:
                async for response in responses:
                    if response.error_message:
                        raise connection.noted(self._asked, self._in_band(response.error_message))
                    answer = self._read(response.infer_response)
                    if answer.outputs:
                        yield answer.outputs
                    if answer.final:
                        return
            _ended_early()
        except AttemptError as error:
            self.failures.append(error)
            raise

    async def _encoded(self, timeout_s: float | None) -> bytes:
        if self._message is None:
            timeout_us = None if timeout_s is None else int(timeout_s * 1e6)
            if size_of(self._batch) >= OFF_LOOP_BYTES:
                self._message = await asyncio.to_thread(
                    encode, self._batch, self._target, timeout_us=timeout_us
                )
            else:
                self._message = encode(self._batch, self._target, timeout_us=timeout_us)
        return self._message

    async def _answer(self, body: bytes, lease: Lease | None = None) -> Answer:
        """Decode; in a thread where that takes long, which views of numbers do not."""
        elsewhere = () if lease is None else lease.placed.outputs
        slow = len(body) >= OFF_LOOP_BYTES and any(
            spec.datatype in {Datatype.BYTES, Datatype.BOOL} for spec in self._target.signature.outputs
        )
        try:
            if slow:
                answer = await asyncio.to_thread(decode, body, self._target, elsewhere)
            else:
                answer = decode(body, self._target, elsewhere)
            if lease is not None and answer.in_shared_memory:
                answer.outputs.update(await self._collected(lease, answer.in_shared_memory))
            check_complete(answer, self._batch.output_names)
        except WrongAnswer as error:
            raise _wrong(error) from error
        return answer

    async def _collected(self, lease: Lease, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, Array]:
        signature = self._target.signature
        if lease.segment.nbytes >= OFF_LOOP_BYTES:
            return await asyncio.to_thread(lease.read, shapes, signature)
        return lease.read(shapes, signature)

    def _read(self, response: Any) -> Answer:
        try:
            return read(response, self._target)
        except WrongAnswer as error:
            raise _wrong(error) from error

    def _in_band(self, text: str) -> GatewayError:
        return in_band(text, model=self._asked.loaded.model, name=self._asked.name)

    async def _through_memory(
        self, connection: TritonConnection, regions: Regions, timeout_s: float | None
    ) -> Answer | None:
        """Run it through shared memory; None, having run nothing: it is to go over gRPC.

        The call itself is never called off, only no longer waited for: as long as it runs the endpoint may
        use the region.
        """
        lease = await regions.lease(self._batch, self._target.signature)
        if lease is None:
            return None
        running = regions.own(self._with(lease, connection, regions))
        done, _ = await asyncio.wait([running], timeout=timeout_s)
        if not done:
            raise AttemptError("no answer in time", Outcome.TIMED_OUT)
        try:
            return running.result()
        except RegionUnknown:
            regions.forget()
            return None

    async def _with(self, lease: Lease, connection: TritonConnection, regions: Regions) -> Answer:
        """Run it with a region, which is given back at the end."""
        reusable = False
        try:
            message = encode(self._batch, self._target, placed=lease.placed)
            try:
                body = await connection.infer(self._asked, message, None)
            except Exception as error:
                reusable = ended_there(error.__cause__) and not isinstance(error, RegionUnknown)
                raise
            reusable = True
            try:
                return await self._answer(body, lease)
            except AttemptError as error:
                regions.stop(str(error))
                raise
        finally:
            regions.give_back(lease, reusable=reusable)


def _ended_early() -> NoReturn:
    raise AttemptError("the stream ended before its last response", Outcome.FAILED)


def _wrong(error: WrongAnswer) -> AttemptError:
    return AttemptError(f"wrong answer: {error}", Outcome.FAILED)
