"""A monitor of the tests: a real gRPC server that applies each frame once, and acknowledges."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc

from gateway._proto import prediction_log_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVICE = "model_gateway.prediction_log.v1.PredictionLog"


class MonitorServer:
    """What it applied outlives its server, as a database would.

    Attributes:
        rows: of every frame applied, by epoch and sequence.
        copies: how many frames came, duplicates among them.
        metadata: of the last stream.
        credit_bytes: given with each ack.
        credit_frames: likewise.
        durable: acks say that all is durable; else only that it is applied.
        silent: says nothing at all.
        mute: says nothing after its greeting.
        sample_hint: told with each ack.
    """

    def __init__(self, address: str, credentials: grpc.ServerCredentials | None = None) -> None:
        self.address = address
        self.rows: dict[tuple[int, int], int] = {}
        self.copies = 0
        self.metadata: dict[str, str | bytes] = {}
        self.credit_bytes = 1 << 20
        self.credit_frames = 64
        self.durable = True
        self.silent = False
        self.mute = False
        self.sample_hint = 0.0
        self.port = 0
        self._credentials = credentials
        self._server: grpc.Server | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4))
        handler = grpc.stream_stream_rpc_method_handler(
            self._stream, pb.LogFrame.FromString, pb.LogAck.SerializeToString
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"Stream": handler}),)
        )
        if self._credentials is None:
            self.port = self._server.add_insecure_port(self.address)
        else:
            self.port = self._server.add_secure_port(self.address, self._credentials)
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(None).wait()
            self._server = None

    def _stream(self, frames: Iterator[pb.LogFrame], context: grpc.ServicerContext) -> Iterator[pb.LogAck]:
        self.metadata = dict(context.invocation_metadata())
        if self.silent:
            threading.Event().wait(5)
            return
        yield pb.LogAck(credit_bytes=self.credit_bytes, credit_frames=self.credit_frames)
        for frame in frames:
            with self._lock:
                self.copies += 1
                if frame.payload:
                    self.rows[frame.epoch, frame.sequence] = frame.rows
            if self.mute:
                continue
            yield pb.LogAck(
                producer=frame.producer,
                epoch=frame.epoch,
                applied_sequence=frame.sequence,
                durable_sequence=frame.sequence if self.durable else 0,
                credit_bytes=self.credit_bytes,
                credit_frames=self.credit_frames,
                sample_hint=self.sample_hint,
            )


def unix_address(directory: Path) -> str:
    """Return the address of a socket in a directory."""
    return f"unix:{directory / 'm.sock'}"
