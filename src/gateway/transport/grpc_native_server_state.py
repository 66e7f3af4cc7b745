"""What the connections of one native gRPC server share: methods, limits, budgets, counts."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from gateway.core.calls import RpcFailure, RpcStatus
from gateway.transport.grpc_native_deadlines import Deadlines
from gateway.transport.grpc_native_head import head_builder, methods_by_path
from gateway.transport.grpc_native_messages import BufferBudget
from gateway.transport.grpc_native_status import CANCELLED, INTERNAL_ERROR
from gateway.transport.http2.head_memo import HeadMemo, MemoBudget
from gateway.transport.http2.huffman import HuffmanStrings
from gateway.transport.http2.limits import ConnectionLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from gateway.core.calls import BeginRpc, RpcCall, RpcService, UnaryRpc
    from gateway.transport.grpc_native_connection import GrpcConnection
    from gateway.transport.grpc_native_head import CallHead
    from gateway.transport.http2.limits import Limit
    from gateway.transport.options import GrpcServerOptions

_log: Final = logging.getLogger(__name__)

_HUFFMAN_MEMO_BYTES: Final = 1024 * 1024
_UNLISTED: Final = ","  # an encoding that no client can accept: it would end an item of the list


class ServerState:
    """One server's shared parts. Event loop only.

    Args:
        services: what is served.
        options: limits.
        limit_fired: counts a limit that a client met.

    Attributes:
        options: as given.
        limits: of each connection.
        buffered: bytes of incomplete messages.
        deadlines: of all calls.
        running: calls open, and those whose work goes on although their client has gone.
        connections: open ones.
        empty: set while none is open.
        tasks: coroutine methods under way.
        idle: set while there are none.
    """

    def __init__(
        self,
        services: Sequence[RpcService],
        options: GrpcServerOptions,
        limit_fired: Callable[[Limit], None],
    ) -> None:
        self.options = options
        self.limits = connection_limits(options)
        self.limit_fired = limit_fired
        self.buffered = BufferBudget(options.http2.max_buffered_bytes, limit_fired)
        self.deadlines = Deadlines()
        self.running = 0
        self.connections: set[GrpcConnection] = set()
        self.empty = asyncio.Event()
        self.empty.set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.idle = asyncio.Event()
        self.idle.set()
        self._strings = HuffmanStrings(_HUFFMAN_MEMO_BYTES)
        self._memo_budget = MemoBudget(options.http2.memo_bytes)
        encoding = options.response_compression
        self._build = head_builder(
            methods_by_path(services, self._begun),
            accept_compression=options.accept_compression,
            response_encoding=_UNLISTED if encoding == "none" else encoding,
        )

    def memo(self) -> HeadMemo[CallHead]:
        """Return the header-block memory of one more connection."""
        return HeadMemo(
            self._strings,
            self._build,
            self.options.max_metadata_bytes,
            self.options.http2.memo_bytes_per_connection,
            self._memo_budget,
        )

    def _begun(self, method: UnaryRpc) -> BeginRpc:
        """Return a coroutine method as one that is begun: its task answers."""

        def begin(call: RpcCall) -> None:
            call.on_cancel(self.spawn(answered(method, call)).cancel)

        return begin

    def spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run a coroutine method in a task that the server owns."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        self.idle.clear()
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not self.tasks:
            self.idle.set()

    def abandon(self) -> None:
        """Wait no longer for the coroutine methods that are left."""
        if self.tasks:
            _log.warning("rpc_methods_abandoned", extra={"count": len(self.tasks)})
            self.tasks.clear()
        self.idle.set()


async def answered(method: UnaryRpc, call: RpcCall) -> None:
    """Run a coroutine method and answer its call with what it returns or raises."""
    try:
        message = await method(call)
    except RpcFailure as failure:
        call.fail(failure.status)
    except asyncio.CancelledError:
        call.fail(RpcStatus(CANCELLED, "cancelled"))  # the client has gone: this only ends the call
        raise
    except Exception:  # noqa: BLE001 - whatever a method raises is its call's failure alone
        _log.exception("rpc_method_failed")
        call.fail(INTERNAL_ERROR)
    else:
        call.reply(message)


def connection_limits(options: GrpcServerOptions) -> ConnectionLimits:
    """Return the limits of each connection."""
    http2 = options.http2
    return ConnectionLimits(
        connection_window_bytes=http2.connection_window_bytes,
        stream_window_bytes=http2.stream_window_bytes,
        max_frame_bytes=http2.max_frame_bytes,
        max_streams=options.max_concurrent_streams,
        max_header_list_bytes=options.max_metadata_bytes,
        max_header_block_bytes=max(http2.max_header_block_bytes, options.max_metadata_bytes),
        max_continuations=http2.max_continuations,
        max_unsent_bytes=http2.max_unsent_bytes,
        max_resets=http2.max_resets,
        max_control_frames=http2.max_control_frames,
        abuse_interval_s=http2.abuse_interval_s,
        preface_timeout_s=http2.preface_timeout_s,
        header_timeout_s=http2.header_timeout_s,
        body_timeout_s=http2.body_timeout_s,
        min_body_rate=http2.min_body_rate,
        send_timeout_s=http2.send_timeout_s,
        keepalive_time_s=options.keepalive_time_s,
        keepalive_timeout_s=options.keepalive_timeout_s,
        min_ping_interval_s=options.min_ping_interval_s,
        max_idle_s=options.max_connection_idle_s,
        max_age_s=options.max_connection_age_s,
        max_age_grace_s=options.max_connection_age_grace_s,
    )
