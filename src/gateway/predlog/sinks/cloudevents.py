"""Frames as CloudEvents over HTTP, in the form that KServe's logger gives them.

A batch is two events of the same id, in binary mode: `org.kubeflow.serving.inference.request` with the input
columns and `.response` with the outputs, each a body of the Open Inference Protocol's JSON with `[rows,
width]` tensors. What the format has no place for (keys, arms, weights, accounting) is not sent.
"""

from __future__ import annotations

import http.client
import ssl
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import numpy as np
import orjson

from gateway.predlog.lane_errors import FrameRefused
from gateway.predlog.rows import ColumnKind, Role
from gateway.predlog.seams import SinkUnavailable
from gateway.predlog.wire import MalformedFrame, decode_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gateway.predlog.rows import Column, Frame, RowBatch

REQUEST: Final = "org.kubeflow.serving.inference.request"
RESPONSE: Final = "org.kubeflow.serving.inference.response"

_SLICE_VALUES: Final = 2_000
"""Values put into JSON at a time, some 50 microseconds, so that other threads get the interpreter."""

_DATATYPES: Final = {"f2": "FP16", "f4": "FP32", "f8": "FP64", "b1": "BOOL"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEventsOptions:
    """Where events go, and what they say of where they come from.

    Attributes:
        url: `http://` or `https://`; each event is one POST.
        source: `ce-source`, a URI.
        namespace: `ce-namespace`.
        component: `ce-component`.
        endpoint: `ce-endpoint`.
        headers: more headers, for authorisation.
        timeout_s: of connecting and of each answer.
        tls: for `https://`; None: the system's authorities.
    """

    url: str
    source: str = "http://localhost:9081/"
    namespace: str = "default"
    component: str = "predictor"
    endpoint: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 1.0
    tls: ssl.SSLContext | None = None


class CloudEventsSink:
    """A `FrameSink`; a frame is acknowledged when both its events were answered 2xx."""

    name: str = "cloudevents"

    def __init__(self, options: CloudEventsOptions) -> None:
        self._options = options
        self._url = urlsplit(options.url)
        self._connection: http.client.HTTPConnection | None = None
        self._acknowledged: Callable[[int, int], None] | None = None

    def open(self, acknowledged: Callable[[int, int], None]) -> None:
        """Connect.

        Raises:
            SinkUnavailable: nobody is there.
        """
        self.close()
        self._acknowledged = acknowledged
        connection = self._new_connection()
        try:
            connection.connect()
        except OSError as error:
            raise SinkUnavailable(f"{self._url.netloc} cannot be reached: {error}") from error
        self._connection = connection

    def send(self, frame: Frame) -> None:
        """Post a frame's two events and wait for the answers.

        Raises:
            SinkUnavailable: no answer, or one that asks to come again (408, 425, 429, 3xx, 5xx).
            FrameRefused: any other answer, or the frame cannot be decoded.
        """
        if self._acknowledged is None:
            raise SinkUnavailable("not open")
        if frame.rows:
            try:
                batch = decode_frame(frame.data).batch()
            except MalformedFrame as error:
                raise FrameRefused(f"the frame cannot be decoded: {error}") from error
            assert batch is not None
            ident = f"{frame.producer}-{frame.epoch}-{frame.sequence}"
            self._post(REQUEST, ident, batch, request_body(ident, batch))
            self._post(RESPONSE, ident, batch, response_body(ident, batch))
        self._acknowledged(frame.epoch, frame.sequence)

    def close(self) -> None:
        """Disconnect; everything sent was answered."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _new_connection(self) -> http.client.HTTPConnection:
        host, timeout_s = self._url.hostname or "", self._options.timeout_s
        if self._url.scheme == "https":
            context = self._options.tls or ssl.create_default_context()
            return http.client.HTTPSConnection(host, self._url.port, timeout=timeout_s, context=context)
        return http.client.HTTPConnection(host, self._url.port, timeout=timeout_s)

    def _post(self, kind: str, ident: str, batch: RowBatch, body: bytes) -> None:
        if self._connection is None:
            raise SinkUnavailable("not connected")
        target = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        try:
            self._connection.request("POST", target, body, self._headers(kind, ident, batch))
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise SinkUnavailable(f"{self._url.netloc} did not answer: {error!r}") from error
        if answer.status in _AGAIN or answer.status // 100 in {3, 5}:
            raise SinkUnavailable(f"{self._url.netloc} answered {answer.status}")
        if answer.status // 100 != 2:
            raise FrameRefused(f"{self._url.netloc} answered {answer.status} {answer.reason}")

    def _headers(self, kind: str, ident: str, batch: RowBatch) -> dict[str, str]:
        when = datetime.fromtimestamp(int(batch.done_ns.max()) / 1e9, UTC)
        options = self._options
        return {
            **options.headers,
            "Content-Type": "application/json",
            "ce-specversion": "1.0",
            "ce-id": ident,
            "ce-type": kind,
            "ce-source": options.source,
            "ce-time": when.isoformat().replace("+00:00", "Z"),
            "ce-inferenceservicename": _header_value(batch.model),
            "ce-namespace": options.namespace,
            "ce-component": options.component,
            "ce-endpoint": options.endpoint,
        }


_AGAIN: Final = frozenset({408, 425, 429})


def request_body(ident: str, batch: RowBatch) -> bytes:
    """Return the inputs of a batch as JSON."""
    return b'{"id":%s,"inputs":%s}' % (orjson.dumps(ident), _tensors(batch, Role.INPUT))


def response_body(ident: str, batch: RowBatch) -> bytes:
    """Return the outputs of a batch as JSON; none where every row failed."""
    head = (orjson.dumps(batch.model), orjson.dumps(str(batch.version)), orjson.dumps(ident))
    return b'{"model_name":%s,"model_version":%s,"id":%s,"outputs":%s}' % (
        *head,
        _tensors(batch, Role.OUTPUT),
    )


def _tensors(batch: RowBatch, role: Role) -> bytes:
    return b"[%s]" % b",".join(_tensor(column) for column in batch.columns if column.role is role)


def _tensor(column: Column) -> bytes:
    values = column.values
    category = column.kind is ColumnKind.CATEGORY
    datatype = "BYTES" if category else _datatype(values.dtype)
    head = orjson.dumps({"name": column.name, "shape": list(values.shape), "datatype": datatype})
    return head[:-1] + b',"data":[%s]}' % b",".join(_slices(column))


def _slices(column: Column) -> Iterator[bytes]:
    """Yield the values in JSON, comma-separated, some at a time; NaN and missing categories are null."""
    flat = column.values.reshape(-1)
    names = [*(entry.decode(errors="replace") for entry in column.dictionary), None]
    for start in range(0, flat.size, _SLICE_VALUES):
        part = flat[start : start + _SLICE_VALUES]
        if column.kind is ColumnKind.CATEGORY:
            text = orjson.dumps([names[code] for code in part.tolist()])
        else:
            native = np.ascontiguousarray(part, part.dtype.newbyteorder("="))
            text = orjson.dumps(native, option=orjson.OPT_SERIALIZE_NUMPY)
        yield text[1:-1]
        time.sleep(0)


def _datatype(dtype: np.dtype[np.generic]) -> str:
    known = _DATATYPES.get(dtype.str[1:])
    if known is not None:
        return known
    return f"{'UINT' if dtype.kind == 'u' else 'INT'}{8 * dtype.itemsize}"


def _header_value(text: str) -> str:
    return "".join(c if 32 <= ord(c) < 127 else "?" for c in text)
