"""Generates a closed loop over HTTP: one connection per request in flight, on bare asyncio protocols.

The request is built once and the same bytes are sent every time; answers are framed by httptools and not
looked into. That leaves the most CPU time to a server on the same machine.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import httptools

from gateway.commands.client import GatewayClient, model_path, raise_for_status
from gateway.commands.samples import sample_tensor
from gateway.commands.wire import encode_request

if TYPE_CHECKING:
    from gateway.commands.client import Address
    from gateway.commands.samples import SampleOptions
    from gateway.commands.tally import Load, LoadRun, Tally

_ERROR_BYTES = 300


def prepare_http(address: Address, model: str, version: str, samples: SampleOptions) -> LoadRun:
    """Build the request and send it once, so that a model that refuses it says so before the run.

    Raises:
        CommandFailed: no gateway, no such model, or the request was refused.
    """
    path = f"{model_path(model, version)}/infer"
    with GatewayClient(address) as client:
        metadata = client.metadata(model, version)
        tensors = [sample_tensor(spec, samples) for spec in metadata.inputs if not spec.optional]
        headers, body = encode_request(tensors)
        raise_for_status(client.request("POST", path, body, headers))
    lines = [f"POST {address.base_path}{path} HTTP/1.1", f"host: {address.host}:{address.port}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""])
    return _Run(address, head.encode() + body)


class _Run:
    """A LoadRun."""

    def __init__(self, address: Address, request: bytes) -> None:
        self._address = address
        self._request = request

    async def __call__(self, load: Load) -> None:
        """Open the connections, then wait until each has had its last answer."""
        until_s = time.perf_counter() + load.seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(load.concurrency):
                group.create_task(self._loop(load.tally, until_s))

    async def _loop(self, tally: Tally, until_s: float) -> None:
        try:
            connection = await self._connect(tally, until_s)
        except OSError as exc:
            tally.error(f"no connection: {exc.strerror or exc}")
            return
        try:
            await connection.done
        finally:
            connection.close()

    async def _connect(self, tally: Tally, until_s: float) -> _Connection:
        context = ssl.create_default_context() if self._address.secure else None
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self._request, tally, until_s),
            self._address.host,
            self._address.port,
            ssl=context,
        )
        return connection


class _Connection(asyncio.Protocol):
    """Sends, waits for the whole answer, sends again, until the time is up or the connection breaks."""

    def __init__(self, request: bytes, tally: Tally, until_s: float) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._tally = tally
        self._until_s = until_s
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.WriteTransport | None = None
        self._sent_ns = 0
        self._error_body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        # Not an assertion: uvloop's transports are WriteTransports without deriving from it.
        self._transport = cast("asyncio.WriteTransport", transport)
        self._send(self._transport)

    def data_received(self, data: bytes) -> None:
        """Pass bytes to the parser, whose callbacks do the rest."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._finish(f"not HTTP: {exc}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the request that was under way as failed."""
        self._finish(f"connection lost: {exc or 'closed by the server'}")

    def on_body(self, body: bytes) -> None:
        """Keep the beginning of an error's message (called by the parser)."""
        if self._parser.get_status_code() != HTTPStatus.OK:
            self._error_body = (self._error_body + body)[:_ERROR_BYTES]

    def on_message_complete(self) -> None:
        """Count the answer and go on (called by the parser)."""
        now_ns = time.perf_counter_ns()
        status = self._parser.get_status_code()
        if status == HTTPStatus.OK:
            self._tally.latencies_ns.append(now_ns - self._sent_ns)
        else:
            self._tally.error(f"{status}: {self._error_body.decode(errors='replace')}")
            self._error_body = b""
        if now_ns < self._until_s * 1e9 and self._transport is not None:
            self._send(self._transport)
        else:
            self._finish()

    def close(self) -> None:
        """Close the connection; what is under way is not counted."""
        self._finish()
        if self._transport is not None:
            self._transport.close()

    def _send(self, transport: asyncio.WriteTransport) -> None:
        self._sent_ns = time.perf_counter_ns()
        transport.write(self._request)

    def _finish(self, error: str = "") -> None:
        if self.done.done():
            return
        if error:
            self._tally.error(error)
        self.done.set_result(None)
