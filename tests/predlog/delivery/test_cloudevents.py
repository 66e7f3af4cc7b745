"""CloudEvents to a real HTTP server."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest

from gateway.predlog.lane_errors import FrameRefused
from gateway.predlog.rows import Frame
from gateway.predlog.seams import SinkUnavailable
from gateway.predlog.sinks.cloudevents import CloudEventsOptions, CloudEventsSink, request_body
from tests.predlog.delivery.frames import EPOCH, batch, frame
from tests.predlog.sink_contract import Acks, SinkContract

if TYPE_CHECKING:
    from collections.abc import Iterator


class EventRig:
    """A server that keeps events; `status` is what it answers."""

    def __init__(self) -> None:
        self.events: list[tuple[dict[str, str], Any]] = []
        self.status = 200
        self.port = 0
        self._server: ThreadingHTTPServer | None = None
        self.start()

    def start(self) -> None:
        rig = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if rig.status == 200:
                    rig.events.append((dict(self.headers.items()), orjson.loads(body)))
                self.send_response(rig.status)
                self.send_header("Content-Length", "0")
                if rig._server is None:
                    self.close_connection = True
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def sink(self) -> CloudEventsSink:
        return CloudEventsSink(
            CloudEventsOptions(url=f"http://127.0.0.1:{self.port}/log?a=1", timeout_s=10.0)
        )

    def received(self) -> dict[tuple[int, int], int]:
        found: dict[tuple[int, int], int] = {}
        for headers, body in self.events:
            if headers["ce-type"].endswith("response"):
                _, epoch, sequence = headers["ce-id"].rsplit("-", 2)
                found[int(epoch), int(sequence)] = body["outputs"][0]["shape"][0]
        return found


@pytest.fixture
def rig() -> Iterator[EventRig]:
    made = EventRig()
    yield made
    made.stop()


class TestContract(SinkContract):
    @pytest.fixture
    def rig(self) -> Iterator[EventRig]:
        made = EventRig()
        yield made
        made.stop()


def test_events_have_the_form_of_kserves_logger(rig: EventRig) -> None:
    """Two events of one id, in binary mode, with the Open Inference Protocol's JSON."""
    with closing(rig.sink()) as sink:
        sink.open(Acks())
        sink.send(frame(4))
    (request, asked), (response, answered) = rig.events
    assert request["ce-specversion"] == "1.0"
    assert request["ce-type"] == "org.kubeflow.serving.inference.request"
    assert response["ce-type"] == "org.kubeflow.serving.inference.response"
    assert request["ce-id"] == response["ce-id"] == f"gw-{EPOCH}-4"
    assert request["ce-inferenceservicename"] == "loans"
    assert request["ce-time"] == "2024-10-04T00:00:00.000001Z"
    assert request["Content-Type"] == "application/json"
    assert asked["inputs"] == [
        {"name": "age", "shape": [2, 1], "datatype": "FP32", "data": [0.0, 1.0]},
        {"name": "pair", "shape": [2, 2], "datatype": "FP32", "data": [0.0, 1.0, 1.0, 2.0]},
        {"name": "job", "shape": [2, 1], "datatype": "BYTES", "data": [None, None]},
    ]
    assert answered["model_name"] == "loans"
    assert answered["model_version"] == "3"
    assert answered["outputs"][0]["name"] == "score"


@pytest.mark.parametrize("rows", [1, 1_999, 2_001, 6_000])
def test_long_columns_are_whole(rows: int) -> None:
    """Whatever the number of slices; what is missing is null."""
    made = batch(rows)
    values = made.columns[0].values.copy()
    values[0] = np.nan
    given = replace(made, columns=(replace(made.columns[0], values=values),))
    data = orjson.loads(request_body("x", given))["inputs"][0]["data"]
    assert data == [None, *(float(i) for i in range(1, rows))]


@pytest.mark.parametrize("status", [301, 408, 429, 500, 503])
def test_an_answer_that_may_change_is_asked_again(rig: EventRig, status: int) -> None:
    """The frame counts as not sent."""
    rig.status = status
    with closing(rig.sink()) as sink:
        sink.open(Acks())
        with pytest.raises(SinkUnavailable, match=str(status)):
            sink.send(frame(1))


def test_an_answer_that_will_not_change_drops_the_frame(rig: EventRig) -> None:
    """Others go on."""
    rig.status = 400
    acks = Acks()
    with closing(rig.sink()) as sink:
        sink.open(acks)
        with pytest.raises(FrameRefused, match="400"):
            sink.send(frame(1))
        with pytest.raises(FrameRefused, match="decoded"):
            sink.send(Frame(producer="gw", epoch=EPOCH, sequence=1, rows=1, data=b"\xff"))
        rig.status = 200
        sink.send(frame(2))
    assert acks.highest == {EPOCH: 2}
