"""The HTTP methods: every route's success and failures, through the route table."""

from __future__ import annotations

import asyncio
import base64
import gc
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest

from gateway.api.http_routes import http_routes
from gateway.core.errors import (
    BackendError,
    DeadlineExceeded,
    GatewayError,
    InvalidRequest,
    ModelLoadError,
    NotFound,
    Overloaded,
    PermissionDenied,
    Unavailable,
)
from gateway.protocol.status import StatusProfile
from gateway.testing import EchoService, settle
from tests.api.drivers import HttpDriver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.api.context import ApiContext
    from gateway.api.readiness import ReadinessNotifier
    from gateway.core.calls import HttpResponse
    from gateway.core.types import InferRequest, InferResponse
    from gateway.testing import VirtualClock
    from tests.api.drivers import Catalog, Repository

SHARED_MEMORY = "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."


@pytest.fixture
def http(context: ApiContext) -> HttpDriver:
    return HttpDriver(http_routes(context))


def infer_body(values: Any = ((1.0, 2.0),), **members: Any) -> bytes:
    array = np.array(values, np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": array.shape, "data": array.tolist()}
    return orjson.dumps({"inputs": [tensor], **members})


INFER = infer_body()


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", "/v2", b"", {"name": "model-gateway", "version": "1.2.3"}),
        ("GET", "/", b"", {"name": "model-gateway"}),
        ("GET", "/v2/health/live", b"", {"live": True}),
        ("GET", "/v2/health/ready", b"", {"ready": True}),
        ("GET", "/v2/models/rows", b"", {"name": "rows", "versions": ["1", "2"]}),
        ("GET", "/v2/models/rows/versions/1", b"", {"name": "rows", "platform": "onnxruntime_onnx"}),
        ("GET", "/v2/models/rows/ready", b"", {"name": "rows", "ready": True}),
        ("GET", "/v2/models/rows/versions/2/ready", b"", {"name": "rows", "ready": True}),
        ("GET", "/v2/models/rows/config", b"", {"name": "rows", "max_batch_size": 8}),
        ("GET", "/v2/models/rows/versions/1/config", b"", {"name": "rows"}),
        ("POST", "/v2/models/rows/infer", INFER, {"model_name": "rows", "model_version": "2"}),
        ("POST", "/v2/models/rows/versions/2/infer", INFER, {"model_name": "rows"}),
        ("POST", "/v2/models/rows/generate", b'{"x": [1, 2]}', {"model_name": "rows", "x": [1, 2]}),
        ("POST", "/v2/models/rows/versions/2/generate", b'{"x": [1, 2]}', {"model_name": "rows"}),
        ("POST", "/v2/repository/models/rows/load", b"", {}),
        ("POST", "/v2/repository/models/rows/unload", b'{"parameters":{"unload_dependents":true}}', {}),
        ("GET", "/v2/logging", b"", {"log_info": True, "log_verbose_level": 0}),
        ("POST", "/v2/logging", b'{"log_verbose_level":2}', {"log_verbose_level": 2}),
        ("GET", "/v2/trace/setting", b"", {"trace_level": ["OFF"], "trace_rate": "1000"}),
        ("POST", "/v2/trace/setting", b'{"trace_rate":"5"}', {"trace_rate": "5"}),
        ("POST", "/v2/trace/setting", b'{"trace_level":["TIMESTAMPS"]}', {"trace_level": ["TIMESTAMPS"]}),
        ("POST", "/v2/trace/setting", b'{"trace_level":"TIMESTAMPS"}', {"trace_level": ["TIMESTAMPS"]}),
        ("GET", "/v2/models/rows/trace/setting", b"", {"trace_count": "-1"}),
        ("POST", "/v2/models/rows/trace/setting", b'{"trace_count":7}', {"trace_count": "7"}),
        ("POST", "/v2/models/rows/trace/setting", b'{"trace_count":null}', {"trace_count": "-1"}),
    ],
)
async def test_success(http: HttpDriver, method: str, path: str, body: bytes, expected: Any) -> None:
    """Each route answers 200 with the members that clients read."""
    reply = await http.fetch(method, path, body)
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert {key: reply.json[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("GET", "/v2/models/none", b"", 404, "'none'"),
        ("GET", "/v2/models/rows/versions/9", b"", 404, "9"),
        ("GET", "/v2/models/rows/versions/latest", b"", 404, "Not Found"),
        ("GET", "/v2/models/rows/versions/0", b"", 400, "0"),
        ("GET", "/v2/models/late", b"", 503, "late"),
        ("GET", "/v2/models/none/ready", b"", 404, "'none'"),
        ("GET", "/v2/models/late/ready", b"", 400, "Model version not ready"),
        ("GET", "/v2/models/none/config", b"", 404, "'none'"),
        ("GET", "/v2/models/none/stats", b"", 404, "'none'"),
        ("POST", "/v2/models/rows/infer", b"", 400, "empty"),
        ("POST", "/v2/models/rows/infer", b"{", 400, ""),
        ("POST", "/v2/models/rows/infer", b"{}", 400, "inputs"),
        ("POST", "/v2/models/rows/infer", infer_body(id=7), 400, "id"),
        ("POST", "/v2/models/rows/versions/v1/infer", INFER, 404, "Not Found"),
        ("POST", "/v2/models/many/infer", INFER, 501, "decoupled"),
        ("POST", "/v2/models/rows/generate", b"[]", 400, "object"),
        ("POST", "/v2/models/none/generate", b"{}", 404, "'none'"),
        ("POST", "/v2/models/many/generate", b'{"x": [1, 2]}', 501, "generate_stream"),
        ("POST", "/v2/models/rows/generate_stream", b"[]", 400, "object"),
        ("POST", "/v2/models/none/generate_stream", b"{}", 404, "'none'"),
        ("POST", "/v2/repository/index", b"[]", 400, "object"),
        ("POST", "/v2/repository/index", b'{"ready":1}', 400, "ready"),
        ("POST", "/v2/repository/index", b"{nonsense", 400, "JSON"),
        ("POST", "/v2/repository/index", b"[" * 100_000, 400, "JSON"),
        ("POST", "/v2/repository/other/index", b"", 501, "repository_name"),
        ("POST", "/v2/repository/other/models/rows/load", b"", 501, "repository_name"),
        ("POST", "/v2/repository/other/models/rows/unload", b"", 501, "repository_name"),
        ("POST", "/v2/repository/models/rows/load", b'{"parameters":[]}', 400, "parameters"),
        ("POST", "/v2/repository/models/rows/load", b'{"parameters":{"config":{}}}', 400, "config"),
        ("POST", "/v2/repository/models/rows/load", b'{"parameters":{"a":"b"}}', 400, "'a'"),
        ("POST", "/v2/repository/models/rows/load", b'{"parameters":{"file:m":"?"}}', 400, "base64"),
        ("POST", "/v2/repository/models/rows/load", b'{"parameters":{"file:m":1}}', 400, "file:m"),
        ("POST", "/v2/repository/models/rows/load", b'{"parameters":{"file:m":"AA=="}}', 400, "config"),
        (
            "POST",
            "/v2/repository/models/rows/unload",
            b'{"parameters":{"unload_dependents":1}}',
            400,
            "unload_dependents",
        ),
        ("POST", "/v2/logging", b'{"log_info":"yes"}', 400, "log_info"),
        ("POST", "/v2/logging", b'{"log_info":[]}', 400, "log_info"),
        ("POST", "/v2/logging", b'{"colour":1}', 400, "colour"),
        ("POST", "/v2/trace/setting", b'{"trace_rate":"fast"}', 400, "trace_rate"),
        ("POST", "/v2/trace/setting", b'{"trace_rate":true}', 400, "trace_rate"),
        ("POST", "/v2/trace/setting", b'{"trace_level":[1]}', 400, "trace_level"),
        ("POST", "/v2/trace/setting", b'{"trace_level":[]}', 400, "trace_level"),
        ("GET", "/v2/models/none/trace/setting", b"", 404, "'none'"),
        ("POST", "/v2/models/none/trace/setting", b"{}", 404, "'none'"),
        *(
            (method, f"/v2/{kind}sharedmemory/{path}", b"", 501, SHARED_MEMORY)
            for kind in ("system", "cuda")
            for method, path in (
                ("GET", "status"),
                ("GET", "region/r/status"),
                ("POST", "region/r/register"),
                ("POST", "unregister"),
                ("POST", "region/r/unregister"),
            )
        ),
    ],
)
async def test_failure(
    http: HttpDriver, *, method: str, path: str, body: bytes, status: int, text: str
) -> None:
    """Each failure has its status and an `error` that says what was wrong."""
    reply = await http.fetch(method, path, body)
    assert reply.status == status
    assert text in reply.json["error"]


async def test_not_ready(http: HttpDriver, catalog: Catalog, readiness: ReadinessNotifier) -> None:
    """A server that is not ready, or going, answers 400 as Triton does, and is alive still."""
    catalog.ready = False
    reply = await http.fetch("GET", "/v2/health/ready")
    assert (reply.status, reply.json["ready"]) == (400, False)
    catalog.ready = True
    readiness.begin_drain()
    assert (await http.fetch("GET", "/v2/health/ready")).status == 400
    assert (await http.fetch("GET", "/v2/models/rows/ready")).status == 400
    assert (await http.fetch("GET", "/v2/health/live")).status == 200


async def test_root_page_for_browsers(http: HttpDriver) -> None:
    """A browser gets a page that links to the models."""
    reply = await http.fetch("GET", "/", headers={"accept": "text/html,*/*"})
    assert reply.headers["content-type"].startswith("text/html")
    assert b'href="/v2/models/rows"' in reply.body


async def test_statistics(http: HttpDriver, catalog: Catalog) -> None:
    """Statistics of all, of one model and of one version, with integers as numbers."""
    catalog.get("rows", "2").statistics.inference_count = 5
    for path, count in (("", 3), ("/rows", 2), ("/rows/versions/2", 1)):
        stats = (await http.fetch("GET", f"/v2/models{path}/stats")).json["model_stats"]
        assert len(stats) == count
        assert [s["inference_count"] for s in stats if (s["name"], s["version"]) == ("rows", "2")] == [5]


async def test_repository(http: HttpDriver, repository: Repository) -> None:
    """Index, load with config and files, and unload."""
    index = (await http.fetch("POST", "/v2/repository/index")).json
    assert {(m["name"], m["state"]) for m in index} == {
        ("rows", "READY"),
        ("many", "READY"),
        ("late", "LOADING"),
    }
    ready = (await http.fetch("POST", "/v2/repository/index", b'{"ready":true}')).json
    assert "late" not in {m["name"] for m in ready}
    content = bytes(range(256)) * 8192  # more than one piece of base64
    parameters = {"config": "{}", "file:1/model.onnx": base64.b64encode(content).decode()}
    await http.fetch("POST", "/v2/repository/models/rows/load", orjson.dumps({"parameters": parameters}))
    await http.fetch("POST", "/v2/repository/models/rows/unload")
    assert repository.asked == [("load", "rows", "{}", {"1/model.onnx": content}), ("unload", "rows")]


async def test_base64_that_ends_early(http: HttpDriver, repository: Repository) -> None:
    """Padding before the end of a long file is refused, not read as the end of it."""
    text = "A" * ((1 << 20) - 2) + "==" + "A" * 8
    body = orjson.dumps({"parameters": {"config": "{}", "file:m": text}})
    reply = await http.fetch("POST", "/v2/repository/models/rows/load", body)
    assert (reply.status, repository.asked) == (400, [])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Unavailable("explicit model load / unload is not allowed"), 503),
        (ModelLoadError("failed to load 'rows'"), 500),
    ],
)
async def test_repository_refusals(
    http: HttpDriver, repository: Repository, error: GatewayError, status: int
) -> None:
    """What the repository refuses is the response."""
    repository.refuse = error
    reply = await http.fetch("POST", "/v2/repository/models/rows/load")
    assert (reply.status, reply.json) == (status, {"error": str(error)})


async def test_a_load_that_fails_by_what_was_sent_is_the_clients_mistake(
    http: HttpDriver, repository: Repository
) -> None:
    """A configuration or file that cannot be loaded is 400; the model in the repository may be sound."""
    repository.refuse = ModelLoadError("failed to load 'rows'")
    body = orjson.dumps({"parameters": {"config": "{"}})
    reply = await http.fetch("POST", "/v2/repository/models/rows/load", body)
    assert (reply.status, reply.json) == (400, {"error": "failed to load 'rows'"})


async def test_infer_json(http: HttpDriver) -> None:
    """JSON in, flat JSON out, with the request's id."""
    reply = await http.fetch("POST", "/v2/models/rows/infer", infer_body([[1, 2], [3, 4]], id="r7"))
    assert reply.json["id"] == "r7"
    assert reply.json["outputs"] == [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}]


async def test_infer_binary(http: HttpDriver) -> None:
    """Binary tensors both ways, and a raw body alone."""
    tensor = np.array([[1, 2]], np.float32).tobytes()
    item = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    head = orjson.dumps({"inputs": [item], "parameters": {"binary_data_output": True}})
    for body, length in ((head + tensor, len(head)), (tensor, 0)):
        headers = {"inference-header-content-length": str(length)}
        reply = await http.fetch("POST", "/v2/models/rows/infer", body, headers)
        assert reply.headers["content-type"] == "application/octet-stream"
        assert reply.body[int(reply.headers["inference-header-content-length"]) :] == tensor


async def test_infer_classification(http: HttpDriver) -> None:
    """A classified output holds the best classes with the labels of the model."""
    body = infer_body([[0.25, 0.75]], outputs=[{"name": "x", "parameters": {"classification": 1}}])
    reply = await http.fetch("POST", "/v2/models/rows/infer", body)
    assert reply.json["outputs"][0]["data"] == ["0.750000:1:dog"]


@pytest.mark.parametrize(
    ("header", "parameter_us", "deadline_s"),
    [("250", 0, 1000.25), ("250", 100_000, 1000.1), ("0.5", 900_000, 1000.0005), (None, 0, None)],
)
async def test_deadline(
    http: HttpDriver, service: EchoService, header: str | None, parameter_us: int, deadline_s: float | None
) -> None:
    """The header bounds the time in queue, and the `timeout` parameter can only shorten it."""
    headers = {"x-request-timeout-ms": header} if header else {}
    parameters = {"parameters": {"timeout": parameter_us}} if parameter_us else {}
    await http.fetch("POST", "/v2/models/rows/infer", infer_body(**parameters), headers)
    assert service.pendings[0].request.deadline_s == pytest.approx(deadline_s)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon", "1e99", ""])
async def test_bad_deadline(http: HttpDriver, service: EchoService, value: str) -> None:
    """A deadline that is none is refused by name."""
    headers = {"x-request-timeout-ms": value}
    reply = await http.fetch("POST", "/v2/models/rows/infer", INFER, headers)
    assert reply.status == 400
    assert "X-Request-Timeout-Ms" in reply.json["error"]
    assert not service.pendings


@pytest.mark.parametrize(
    ("asked", "given"), [({"x-server-timing": "1"}, True), ({"x-server-timing": "0"}, False), ({}, False)]
)
async def test_server_timing(
    http: HttpDriver, clock: VirtualClock, asked: dict[str, str], given: bool
) -> None:
    """A request that asks for it gets its timing as a header, others none."""
    clock.advance(0.25)
    reply = await http.fetch("POST", "/v2/models/rows/infer", INFER, asked)
    assert ("total;dur=250.000" in reply.headers.get("server-timing", "")) is given


@pytest.mark.parametrize(
    ("error", "status", "triton"),
    [
        (NotFound("none"), 404, 404),
        (PermissionDenied("no"), 403, 403),
        (Overloaded("full", retry_after_s=1.2), 429, 503),
        (DeadlineExceeded("late"), 504, 503),
        (BackendError("bad"), 500, 500),
    ],
)
@pytest.mark.parametrize("route", ["infer", "generate"])
async def test_infer_failures(
    context: ApiContext, error: GatewayError, status: int, triton: int, route: str
) -> None:
    """An error of the service is the response, by the profile, whether it refused or failed later."""
    body = INFER if route == "infer" else b'{"x": [1, 2]}'
    for profile, expected in ((StatusProfile.DEFAULT, status), (StatusProfile.TRITON, triton)):
        for refused in (True, False):
            service = EchoService(held=True)
            service.refuse = error if refused else None
            http = HttpDriver(http_routes(replace(context, service=service, profile=profile)))
            replies: list[HttpResponse] = []
            found, request = http.request("POST", f"/v2/models/rows/{route}", body)
            assert found.begin is not None
            found.begin(request, replies.append)
            if not refused:
                service.answer(service.pendings[0], error)
            (reply,) = replies
            assert (reply.status, orjson.loads(reply.body[0])) == (expected, {"error": str(error)})
            assert (("Retry-After", "2") in reply.headers) is isinstance(error, Overloaded)


async def test_a_client_that_goes_cancels_its_request(context: ApiContext) -> None:
    """The hook that `begin` returns cancels the service's pending request."""
    service = EchoService(held=True)
    http = HttpDriver(http_routes(replace(context, service=service)))
    route, request = http.request("POST", "/v2/models/rows/infer", INFER)
    replies: list[HttpResponse] = []
    assert route.begin is not None
    cancel = route.begin(request, replies.append)
    assert not replies
    cancel()
    assert service.pendings[0].done
    assert [r.status for r in replies] == [499]


async def test_what_cannot_be_decoded_is_counted_once(context: ApiContext) -> None:
    """A refusal before the service is told of with its model; one by the service is not."""
    refused: list[tuple[InferRequest, Exception]] = []
    service = EchoService()
    counting = replace(context, service=service, refused=lambda *told: refused.append(told))
    http = HttpDriver(http_routes(counting))
    await http.fetch("POST", "/v2/models/rows/versions/1/infer", b"{", {"traceparent": "as sent"})
    ((request, error),) = refused
    assert (request.model_name, request.model_version, request.received_bytes) == ("rows", "1", 1)
    assert request.headers["traceparent"] == "as sent"
    assert type(error) is InvalidRequest
    refused.clear()
    await http.fetch("POST", "/v2/models/rows/generate_stream", b"{")
    assert [told.model_name for told, _ in refused] == ["rows"]
    service.refuse = Overloaded("full")
    await http.fetch("POST", "/v2/models/rows/infer", INFER)
    assert len(refused) == 1


async def test_a_fault_gives_nothing_away(context: ApiContext, caplog: pytest.LogCaptureFixture) -> None:
    """An exception that nobody foresaw is 500 with a neutral text, and its own is in the log."""

    class Broken(EchoService):
        def submit(self, request: InferRequest) -> Any:
            raise ZeroDivisionError("secret")

    http = HttpDriver(http_routes(replace(context, service=Broken())))
    reply = await http.fetch("POST", "/v2/models/rows/infer", INFER)
    assert reply.status == 500
    assert "secret" not in reply.json["error"]
    assert "secret" in caplog.text


async def test_a_name_that_is_no_unicode(http: HttpDriver) -> None:
    """A name with a lone surrogate, as a decoded path may have, is answered like any unknown one."""
    reply = await http.fetch("GET", "/v2/models/\udc80/ready")
    assert reply.status == 404
    assert "error" in reply.json


class Script(EchoService):
    """Streams that give some responses, then fail or wait, and count how often they were closed."""

    def __init__(
        self, responses: int, *, failure: GatewayError | None = None, empty_last: bool = False
    ) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.go.set()
        self.closed = 0
        self._responses = responses
        self._failure = failure
        self._empty_last = empty_last

    async def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """Give the responses; the event is waited for before each."""
        try:
            for index in range(self._responses):
                await self.go.wait()
                final = index == self._responses - 1 and self._failure is None
                outputs = () if final and self._empty_last else request.inputs
                yield self._response(request, outputs, final=final)
            if self._failure is not None:
                raise self._failure
        finally:
            self.closed += 1


GENERATE_STREAM = "/v2/models/many/generate_stream"
X = b'{"x": [1, 2]}'


def events_of(body: bytes) -> list[Any]:
    events = body.split(b"\n\n")
    assert events.pop() == b""
    return [orjson.loads(event.removeprefix(b"data: ")) for event in events]


@pytest.mark.parametrize("path", [GENERATE_STREAM, "/v2/models/many/versions/1/generate_stream"])
async def test_generate_stream(context: ApiContext, path: str) -> None:
    """Each response is one event; an empty last one is none."""
    for script, count in ((Script(3), 3), (Script(3, empty_last=True), 2), (Script(0), 0)):
        http = HttpDriver(http_routes(replace(context, service=script)))
        reply = await http.fetch("POST", path, X)
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert [event["x"] for event in events_of(reply.body)] == [[1, 2]] * count
        assert script.closed == 1


async def test_generate_stream_gives_each_event_at_once(context: ApiContext) -> None:
    """An event is there as soon as its response is, not only with the next one."""
    script = Script(2)
    http = HttpDriver(http_routes(replace(context, service=script)))
    response = await http.respond("POST", GENERATE_STREAM, X)
    script.go.clear()
    assert response.stream is not None
    assert events_of(await anext(response.stream))
    second = asyncio.ensure_future(anext(response.stream))
    await settle()
    assert not second.done()
    script.go.set()
    assert events_of(await second)
    with pytest.raises(StopAsyncIteration):
        await anext(response.stream)


async def test_generate_stream_that_fails(context: ApiContext) -> None:
    """An error before the first response has its own status; a later one is the last event."""
    for responses in (0, 2):
        script = Script(responses, failure=Overloaded("full"))
        http = HttpDriver(http_routes(replace(context, service=script)))
        reply = await http.fetch("POST", GENERATE_STREAM, X)
        assert reply.status == (200 if responses else 429)
        last = events_of(reply.body)[-1] if responses else reply.json
        assert last == {"error": "full"}
        assert script.closed == 1


async def test_generate_stream_closed_before_it_is_read(context: ApiContext) -> None:
    """A client that goes before the first event was sent still closes the request behind it."""
    script = Script(2)
    http = HttpDriver(http_routes(replace(context, service=script)))
    response = await http.respond("POST", GENERATE_STREAM, X)
    await response.stream.aclose()  # type: ignore[union-attr]  # what a transport does with every stream
    assert script.closed == 1


class Silent(EchoService):
    """A service whose streams never answer; they are plain iterators, which nothing closes by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = 0

    def stream(self, request: InferRequest) -> Any:
        return self

    def __aiter__(self) -> Silent:
        return self

    async def __anext__(self) -> InferResponse:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nothing lets it go on")

    async def aclose(self) -> None:
        self.closed += 1


async def test_generate_stream_cancelled_before_it_answers(context: ApiContext) -> None:
    """A client that goes while the first response is awaited closes the request."""
    script = Silent()
    http = HttpDriver(http_routes(replace(context, service=script)))
    task = asyncio.ensure_future(http.respond("POST", GENERATE_STREAM, X))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert script.closed == 1


class Body(bytearray):
    """A body whose end can be watched."""


async def test_a_refused_body_is_let_go_at_once(context: ApiContext) -> None:
    """Nothing about the refusal keeps the request's bytes, garbage collector or not."""
    http = HttpDriver(http_routes(context))
    body = Body(b'{"inputs": ["' + b"x" * 100_000)
    watched = weakref.ref(body)
    gc.disable()
    try:
        answer = await http.fetch("POST", "/v2/models/rows/infer", body)
        assert answer.status == 400
        del body
        assert watched() is None
    finally:
        gc.enable()
