"""The gRPC service of protos/prediction_log.proto: log streams and labels, by Unix socket and TCP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from gateway._proto import prediction_log_pb2 as pb
from gateway.core.errors import ConfigError, InvalidRequest
from gateway.monitor.ingest.connection import Connection
from gateway.monitor.store.errors import StoreError
from gateway.predlog.wire import MAX_FRAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from gateway.config.monitor_ingest import IngestSettings, IngestTlsSettings
    from gateway.monitor.engine import Engine

    Context = grpc.aio.ServicerContext[bytes, bytes]
    PostLabels = Callable[[pb.LabelBatch], Awaitable[pb.LabelReply]]

LOG_SERVICE: Final = "model_gateway.prediction_log.v1.PredictionLog"
LABEL_SERVICE: Final = "model_gateway.prediction_log.v1.Labels"
PRODUCER_METADATA: Final = "gateway-producer"
EPOCH_METADATA: Final = "gateway-epoch"
GRACE_S: Final = 0.5

_log: Final = logging.getLogger(__name__)


class IngestServer:
    """Serves gateways on the running event loop; each stream shares the engine's inbox by credit.

    Attributes:
        port: of TCP, once started; 0 where there is none.
    """

    def __init__(
        self, engine: Engine, settings: IngestSettings, post_labels: PostLabels | None = None
    ) -> None:
        """Describe a server; nothing is bound yet.

        Args:
            engine: started already, and closed after the server.
            settings: section `ingest:`.
            post_labels: takes the labels of `Labels.Post`; what it raises as InvalidRequest is the client's
                fault. None: the method is not served.
        """
        self.port = 0
        self._engine = engine
        self._settings = settings
        self._post_labels = post_labels
        self._server: grpc.aio.Server | None = None
        self._streams = 0
        self._connected: Counter[str] = Counter()

    @property
    def streams(self) -> int:
        """Gateways connected now."""
        return self._streams

    @property
    def producers(self) -> frozenset[str]:
        """Names of the gateways connected now, of those that say theirs."""
        return frozenset(self._connected)

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            ConfigError: an address cannot be bound, or the TLS files cannot be used.
        """
        options = [
            ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
            ("grpc.max_send_message_length", MAX_FRAME_BYTES),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 1000),
            ("grpc.keepalive_time_ms", 30_000),
        ]
        server = grpc.aio.server(options=options)
        handlers: list[tuple[str, dict[str, Any]]] = [
            (LOG_SERVICE, {"Stream": grpc.stream_stream_rpc_method_handler(self._stream)})
        ]
        if self._post_labels is not None:
            post = grpc.unary_unary_rpc_method_handler(
                self._post,
                request_deserializer=pb.LabelBatch.FromString,
                response_serializer=pb.LabelReply.SerializeToString,
            )
            handlers.append((LABEL_SERVICE, {"Post": post}))
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(*each) for each in handlers])
        if self._settings.socket is not None:
            _bind_socket(server, self._settings.socket)
        if self._settings.listen:
            self.port = _bind_tcp(server, self._settings.listen, self._settings.tls)
        await server.start()
        self._server = server

    async def aclose(self) -> None:
        """End all streams within GRACE_S; what was taken stays with the engine. Again: harmless."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(GRACE_S)
            if self._settings.socket is not None:
                self._settings.socket.unlink(missing_ok=True)

    async def _stream(self, _: object, context: Context) -> None:
        if self._streams >= self._settings.max_streams:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "the monitor has as many streams as it may"
            )
        who = _who(context)
        connection = Connection(self._engine, who, lambda: self._streams)

        async def read() -> bytes | None:
            data: object = await context.read()
            return data if isinstance(data, bytes) else None

        async def write(ack: pb.LogAck) -> None:
            await context.write(ack.SerializeToString())

        self._streams += 1
        self._connected += Counter([who[0]] if who[0] else ())
        try:
            await connection.run(read, write)
        except* StoreError as errors:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(errors.exceptions[0]))
        except* (grpc.aio.UsageError, grpc.aio.InternalError, asyncio.InvalidStateError):
            # The gateway has gone while something was written to it.
            pass
        finally:
            self._streams -= 1
            self._connected -= Counter([who[0]])

    async def _post(
        self, batch: pb.LabelBatch, context: grpc.aio.ServicerContext[pb.LabelBatch, pb.LabelReply]
    ) -> pb.LabelReply:
        post_labels = self._post_labels
        if post_labels is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "labels are not taken here")
        try:
            return await post_labels(batch)
        except InvalidRequest as exc:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(exc))
        except StoreError as exc:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(exc))


def _who(context: Context) -> tuple[str, int]:
    found = {key: str(value) for key, value in context.invocation_metadata() or ()}
    epoch = found.get(EPOCH_METADATA, "0")
    valid = epoch.isascii() and epoch.isdigit() and len(epoch) <= 19
    return found.get(PRODUCER_METADATA, ""), int(epoch) if valid else 0


def _bind_socket(server: grpc.aio.Server, path: Path) -> None:
    """Bind a Unix socket that its owner alone can use; one left over from before is removed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()
        before = os.umask(0o177)
        try:
            server.add_insecure_port(f"unix:{path}")
        finally:
            os.umask(before)
    except (OSError, RuntimeError) as exc:
        raise ConfigError(f"the log stream's socket {path} cannot be bound: {exc}") from exc


def _bind_tcp(server: grpc.aio.Server, address: str, tls: IngestTlsSettings | None) -> int:
    try:
        if tls is None:
            return server.add_insecure_port(address)
        pair = tls.key_file.read_bytes(), tls.certificate_file.read_bytes()
        credentials = grpc.ssl_server_credentials(
            [pair], tls.client_ca_file.read_bytes(), require_client_auth=True
        )
        return server.add_secure_port(address, credentials)
    except (OSError, RuntimeError) as exc:
        raise ConfigError(f"the log stream's address {address} cannot be bound: {exc}") from exc
