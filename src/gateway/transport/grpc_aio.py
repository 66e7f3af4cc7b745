"""The gRPC listener on grpcio's asyncio server: messages in bytes, no method known."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeAlias, TypeVar, cast

import grpc
import grpc.aio

from gateway.core.calls import RpcFailure, RpcStatus
from gateway.core.clock import LoopClock
from gateway.core.errors import ConfigError
from gateway.transport.grpc_aio_gathering import Gathering

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from gateway.core.calls import BeginRpc, Buffer, Headers, RpcService, StreamRpc, UnaryRpc
    from gateway.transport.options import GrpcServerOptions, TlsOptions

_log: Final = logging.getLogger(__name__)

_T = TypeVar("_T")
_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
_CODES: Final[Mapping[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}
_INTERNAL: Final = RpcStatus(grpc.StatusCode.INTERNAL.value[0], "internal error")
# Clients accept 8 KiB of trailing metadata by default; the other half is for the trailers themselves.
_MAX_MESSAGE_BYTES: Final = 4096
_COMPRESSION: Final = {
    "none": grpc.Compression.NoCompression,
    "deflate": grpc.Compression.Deflate,
    "gzip": grpc.Compression.Gzip,
}


class GrpcAioServer:
    """Serves RPC services on one port, on the running event loop.

    A method that is not in `services` is answered UNIMPLEMENTED. A method that raises anything but
    RpcFailure is answered INTERNAL without its text, which is logged.

    Args:
        services: what is served.
        options: address, limits, timeouts.
    """

    def __init__(self, services: Sequence[RpcService], options: GrpcServerOptions) -> None:
        self._services = services
        self._options = options
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port bound, also when 0 was asked for; 0 before the start."""
        return self._port

    async def start(self) -> int:
        """Bind and serve; return the port.

        Raises:
            ConfigError: the address cannot be bound, or the TLS files cannot be used.
        """
        options = self._options
        server = grpc.aio.server(
            options=_channel_options(options),
            maximum_concurrent_rpcs=options.max_concurrent_rpcs,
            compression=_COMPRESSION[options.response_compression],
        )
        # Not registered with the C core: grpc.aio would set up and take down a wait for each registered
        # method, all of them for every call.
        gathering = Gathering(LoopClock())
        handlers = [(service.name, _method_handlers(service, gathering)) for service in self._services]
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(*each) for each in handlers])
        self._port = _bind(server, options)
        await server.start()
        self._server = server
        return self._port

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, tell clients to go away, let calls finish for `grace_s` seconds, then cancel.

        May be called again with less grace while an earlier call waits, and then ends that one too.
        """
        if self._server is not None:
            await self._server.stop(grace_s)


def _bind(server: grpc.aio.Server, options: GrpcServerOptions) -> int:
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"{host}:{options.port}"
    try:
        if options.tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, _credentials(options.tls))
    except RuntimeError as exc:
        raise ConfigError(f"cannot listen on {address}: {exc}") from exc


def _credentials(tls: TlsOptions) -> grpc.ServerCredentials:
    try:
        pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
        roots = None if tls.client_ca is None else tls.client_ca.read_bytes()
    except OSError as exc:
        raise ConfigError(f"TLS files cannot be read: {exc}") from exc
    return grpc.ssl_server_credentials([pair], roots, require_client_auth=roots is not None)


def _channel_options(options: GrpcServerOptions) -> list[tuple[str, int]]:
    """Translate into the C core's arguments (grpc_types.h); times are milliseconds there."""
    values: dict[str, int | None] = {
        "grpc.so_reuseport": 0,
        "grpc.max_receive_message_length": options.max_receive_bytes,
        "grpc.max_send_message_length": options.max_send_bytes,
        "grpc.max_metadata_size": options.max_metadata_bytes,
        "grpc.absolute_max_metadata_size": options.max_metadata_bytes,
        "grpc.max_allowed_incoming_connections": options.max_connections,
        "grpc.max_concurrent_streams": options.max_concurrent_streams,
        "grpc.keepalive_time_ms": _milliseconds(options.keepalive_time_s),
        "grpc.keepalive_timeout_ms": _milliseconds(options.keepalive_timeout_s),
        "grpc.http2.min_ping_interval_without_data_ms": _milliseconds(options.min_ping_interval_s),
        "grpc.max_connection_idle_ms": _milliseconds(options.max_connection_idle_s),
        "grpc.max_connection_age_ms": _milliseconds(options.max_connection_age_s),
        "grpc.max_connection_age_grace_ms": _milliseconds(options.max_connection_age_grace_s),
        # One bit for each algorithm, identity the lowest: without the others the core refuses them.
        "grpc.compression_enabled_algorithms_bitset": None if options.accept_compression else 1,
    }
    return [(name, value) for name, value in values.items() if value is not None]


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, round(seconds * 1000))


def _method_handlers(
    service: RpcService, gathering: Gathering
) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
    """Return grpcio handlers without serializers, so that messages stay bytes."""
    unary = grpc.unary_unary_rpc_method_handler
    handlers: dict[str, Any] = {}
    handlers |= {name: unary(_begin_handler(begin, gathering)) for name, begin in service.begin.items()}
    handlers |= {name: unary(_unary_handler(method)) for name, method in service.unary.items()}
    for name, method in service.stream.items():
        handlers[name] = grpc.stream_stream_rpc_method_handler(_stream_handler(method))
    for name, method in service.server_stream.items():
        handlers[name] = grpc.unary_stream_rpc_method_handler(_server_stream_handler(method))
    return handlers


class _Lazy(Generic[_T]):
    """An attribute computed from the call's context when first asked for."""

    def __init__(self, compute: Callable[[_Context], _T]) -> None:
        self._compute = compute
        self._name = ""

    def __set_name__(self, owner: type[_Facts], name: str) -> None:
        self._name = name

    def __get__(self, facts: _Facts, owner: type[_Facts]) -> _T:
        value = self._compute(facts.context)
        facts.__dict__[self._name] = value  # found before this descriptor from now on
        return value


def _metadata(context: _Context) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _deadline_s(context: _Context) -> float | None:
    remaining_s = cast("float | None", context.time_remaining())
    return None if remaining_s is None else time.monotonic() + remaining_s


def _peer(context: _Context) -> str:
    return str(context.peer())


class _Facts:
    """What is known of a call beside its messages; most calls never look at all of it."""

    metadata = _Lazy(_metadata)
    deadline_s = _Lazy(_deadline_s)
    peer = _Lazy(_peer)

    def __init__(self, context: _Context) -> None:
        self.context = context


class _UnaryCall(_Facts):
    """A call to a `begin` method: one future carries its answer to the waiting handler."""

    def __init__(self, message: bytes, context: _Context) -> None:
        super().__init__(context)
        self.message: Buffer = message
        self.arrived_s = time.monotonic()
        self.answer: asyncio.Future[bytes | RpcStatus] = asyncio.get_running_loop().create_future()
        self.trailers: Headers = ()
        self._callbacks: list[Callable[[], object]] = []

    def reply(self, message: bytes, trailers: Headers = ()) -> None:
        """Answer, unless the call has ended."""
        if not self.answer.done():
            self.trailers = trailers
            self.answer.set_result(message)

    def fail(self, status: RpcStatus) -> None:
        """Answer with a status, unless the call has ended."""
        if not self.answer.done():
            self.answer.set_result(status)

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Run `callback` when the client gives the call up before it is answered."""
        self._callbacks.append(callback)

    def cancelled(self) -> None:
        """Run the callbacks; one that raises does not stop the next."""
        for callback in self._callbacks:
            try:
                callback()
            except Exception:  # noqa: BLE001 - the others must still hear of it
                _log.exception("rpc_cancel_hook_failed")


class _Stream(_Facts):
    """A streaming call; `first` is the request of a server-streaming one."""

    def __init__(self, context: _Context, first: bytes | None = None) -> None:
        super().__init__(context)
        self._first = first
        self._single = first is not None

    def __aiter__(self) -> AsyncIterator[Buffer]:
        return self

    async def __anext__(self) -> Buffer:
        if self._single:
            message, self._first = self._first, None
        else:
            read: object = await self.context.read()
            message = None if read is grpc.aio.EOF else cast("bytes", read)
        if message is None:
            raise StopAsyncIteration
        return message

    async def send(self, message: bytes) -> None:
        """Send one message; waits until the transport has room for it."""
        await self.context.write(message)


def _begin_handler(begin: BeginRpc, gathering: Gathering) -> Callable[[bytes, _Context], Awaitable[bytes]]:
    async def handle(message: bytes, context: _Context) -> bytes:
        call = _UnaryCall(message, context)
        try:
            gathering.add(partial(_begin, begin, call), call.answer.done)
            answer = await call.answer
        except asyncio.CancelledError:
            call.cancelled()
            raise
        if isinstance(answer, RpcStatus):
            await _abort(context, answer)
        if call.trailers:
            context.set_trailing_metadata(tuple(call.trailers))
        return answer

    return handle


def _begin(begin: BeginRpc, call: _UnaryCall) -> None:
    try:
        begin(call)
    except Exception:  # noqa: BLE001 - whatever a method raises is its call's failure alone
        _log.exception("rpc_method_failed")
        call.fail(_INTERNAL)


def _unary_handler(method: UnaryRpc) -> Callable[[bytes, _Context], Awaitable[bytes]]:
    async def handle(message: bytes, context: _Context) -> bytes:
        return await _guarded(method(_UnaryCall(message, context)), context)

    return handle


def _stream_handler(method: StreamRpc) -> Callable[[object, _Context], Awaitable[None]]:
    async def handle(_: object, context: _Context) -> None:
        await _guarded(method(_Stream(context)), context)

    return handle


def _server_stream_handler(method: StreamRpc) -> Callable[[bytes, _Context], Awaitable[None]]:
    async def handle(message: bytes, context: _Context) -> None:
        await _guarded(method(_Stream(context, message)), context)

    return handle


async def _guarded(answer: Awaitable[_T], context: _Context) -> _T:
    """Await a coroutine method and turn what it raises into a status."""
    try:
        return await answer
    except RpcFailure as failure:
        status = failure.status
    except Exception:  # noqa: BLE001 - whatever a method raises is its call's failure alone
        _log.exception("rpc_method_failed")
        status = _INTERNAL
    return await _abort(context, status)


async def _abort(context: _Context, status: RpcStatus) -> NoReturn:
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    await context.abort(code, _status_message(status.message), tuple(status.metadata))


def _status_message(text: str) -> str:
    """Return `text` as far as it fits into a status once percent-encoded, as Status-Message must be."""
    if len(text) * 12 <= _MAX_MESSAGE_BYTES and text.isascii():
        return text
    size = 0
    kept: list[str] = []
    for character in text.encode("utf-8", "replace").decode("utf-8"):
        encoded = character.encode("utf-8")
        plain = len(encoded) == 1 and 0x20 <= encoded[0] <= 0x7E and character != "%"
        size += 1 if plain else 3 * len(encoded)
        if size > _MAX_MESSAGE_BYTES:
            break
        kept.append(character)
    return "".join(kept)
