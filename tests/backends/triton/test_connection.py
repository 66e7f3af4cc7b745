"""One connection against a fake Triton."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from gateway._proto import open_inference_pb2 as pb
from gateway.backends.remote.connection import QueueReport
from gateway.backends.triton.channel import is_local
from gateway.backends.triton.connection import Asked, Connector, TritonConnection
from gateway.backends.triton.failures import VersionNotThere, ended_there
from gateway.backends.triton.versions import Loaded, Versions
from gateway.core.errors import ConfigError, GatewayError, InvalidRequest
from gateway.core.remote import Address, AttemptError, FleetOptions, Outcome, TlsClientOptions
from gateway.transport.fleet_client import FleetDial
from tests.backends.triton.fake import Failure, FakeTriton, model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Connect = Callable[[FakeTriton], AbstractAsyncContextManager[tuple[TritonConnection, Versions]]]

ONE = Loaded("m", 1)
ASKED = Asked(ONE, "digits")
RESTRICTED = Failure(grpc.StatusCode.UNAVAILABLE, "This protocol is restricted, expecting header 'k'")


def message(version: str = "1") -> bytes:
    request = pb.ModelInferRequest(model_name="m", model_version=version)
    request.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    request.raw_input_contents.append(b"1234")
    request.outputs.add(name="y")
    return request.SerializeToString()


@pytest.fixture(params=[None, FleetDial()], ids=["grpcio", "native"])
def connected(request: pytest.FixtureRequest) -> Connect:
    """Connects to an endpoint by either client."""

    @asynccontextmanager
    async def connect(fake: FakeTriton) -> AsyncIterator[tuple[TritonConnection, Versions]]:
        versions = Versions()
        options = FleetOptions(name="f")
        connection = TritonConnection(fake.address, options, versions, dial=request.param)
        try:
            yield connection, versions
        finally:
            await connection.aclose()

    return connect


@pytest.fixture
async def fake() -> AsyncIterator[FakeTriton]:
    async with FakeTriton({"m": model(1, 2)}) as server:
        yield server


async def test_bytes_go_and_come(fake: FakeTriton, connected: Connect) -> None:
    """A request is answered, with the metadata and the time that it was given."""
    async with connected(fake) as (connection, _):
        body = await connection.infer(ASKED._replace(metadata=(("a", "b"),)), message(), 30.0)
    assert pb.ModelInferResponse.FromString(body).raw_output_contents[0] == b"1234"
    assert fake.seen[0].metadata["a"] == "b"
    assert 0 < (fake.seen[0].remaining_s or 0) < 32.0, "gRPC rounds up"


async def test_a_version_that_is_not_there_is_noted(fake: FakeTriton, connected: Connect) -> None:
    """The next request need not find out again."""
    async with connected(fake) as (connection, versions):
        await connection.ready(5.0)
        assert versions.having(ONE) == {fake.address}
        fake.models["m"].versions.discard(1)
        with pytest.raises(VersionNotThere):
            await connection.infer(ASKED, message(), 30.0)
        assert not versions.having(ONE)


async def test_statuses_are_errors(fake: FakeTriton, connected: Connect) -> None:
    """With pushback, where the endpoint asks for it."""
    trailers = (("grpc-retry-pushback-ms", "250"),)
    async with connected(fake) as (connection, _):
        fake.failures["ModelInfer"] = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", trailers)
        with pytest.raises(AttemptError) as caught:
            await connection.infer(ASKED, message(), 30.0)
        assert (caught.value.outcome, caught.value.pushback_s) == (Outcome.REFUSED, 0.25)
        fake.failures["ModelInfer"] = Failure(grpc.StatusCode.INVALID_ARGUMENT, "no 'm' at 10.0.0.1:80")
        with pytest.raises(InvalidRequest, match=r"^model 'digits': no 'digits' at <address>$"):
            await connection.infer(ASKED, message(), 30.0)


ENDS = [
    *((code, "it broke") for code in grpc.StatusCode if code is not grpc.StatusCode.OK),
    (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size"),
    (grpc.StatusCode.UNAVAILABLE, "Server is stopping"),
    (grpc.StatusCode.UNAVAILABLE, "Request for unknown model: 'm' is not at ready state"),
    (grpc.StatusCode.NOT_FOUND, "Unable to find shared memory region: 'r'"),
    (grpc.StatusCode.INTERNAL, "RST_STREAM, stream removed"),
    (grpc.StatusCode.INTERNAL, ""),
]


@pytest.mark.parametrize(("code", "details"), ENDS)
async def test_both_clients_understand_alike(fake: FakeTriton, code: grpc.StatusCode, details: str) -> None:
    """Whatever an endpoint answers is the same error, for its client and for a retry."""
    fake.failures["ModelInfer"] = Failure(code, details, (("grpc-retry-pushback-ms", "20"),))
    understood = []
    for dial in (None, FleetDial()):
        connection = TritonConnection(fake.address, FleetOptions(name="f"), Versions(), dial=dial)
        with pytest.raises(GatewayError) as caught:
            await connection.infer(ASKED, message(), 30.0)
        await connection.aclose()
        error = caught.value
        about = (error.outcome, error.sent, error.pushback_s) if isinstance(error, AttemptError) else ()
        understood.append((type(error), str(error), about, ended_there(error.__cause__)))
    assert understood[0] == understood[1]


async def test_nobody_there(connected: Connect) -> None:
    """An endpoint that cannot be reached has surely run nothing."""
    async with FakeTriton() as gone:
        pass
    async with connected(gone) as (connection, _):
        for question in (connection.ready(5.0), connection.infer(ASKED, message(), 30.0)):
            with pytest.raises(AttemptError) as caught:
                await question
            assert (caught.value.outcome, caught.value.sent) == (Outcome.FAILED, False)


async def test_it_reconnects_by_itself(fake: FakeTriton, connected: Connect) -> None:
    """After the endpoint was away it is used again."""
    async with connected(fake) as (connection, _):
        await connection.ready(5.0)
        await fake.__aexit__(None, None, None)
        with pytest.raises(AttemptError):
            await connection.ready(5.0)
        await fake.__aenter__()
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(AttemptError):
                    await connection.ready(5.0)
                    break
        await connection.infer(ASKED, message(), 30.0)


async def test_cancelling_calls_it_off(fake: FakeTriton, connected: Connect) -> None:
    """The endpoint is told."""
    begun, never = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        await never.wait()

    fake.models["m"].behave = lambda _: wait()
    async with connected(fake) as (connection, _):
        call = asyncio.ensure_future(connection.infer(ASKED, message(), 30.0))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await fake.seen[0].cancelled.wait()


async def test_a_closed_connection_fails_calls(connected: Connect) -> None:
    """What comes after the end is told so."""
    async with FakeTriton({"m": model(1)}) as fake:
        async with connected(fake) as (connection, versions):
            await connection.ready(5.0)
        assert not versions.having(ONE)
        with pytest.raises(AttemptError, match="closed"):
            await connection.infer(ASKED, message(), 30.0)
        with pytest.raises(AttemptError, match="closed"):
            await connection.ready(5.0)


@pytest.mark.parametrize("failure", [RESTRICTED, Failure(grpc.StatusCode.UNIMPLEMENTED)])
async def test_an_endpoint_that_does_not_list_its_models_is_asked_for_each(
    fake: FakeTriton, failure: Failure, connected: Connect
) -> None:
    """What is watched is asked for by name; the index is not asked for again."""
    fake.failures["RepositoryIndex"] = failure
    async with connected(fake) as (connection, versions):
        versions.watch(ONE)
        versions.watch(Loaded("m", 9))
        await connection.ready(5.0)
        await connection.ready(5.0)
        assert versions.of(fake.address) == (ONE,)
    assert fake.asked.count("RepositoryIndex") == 1


async def test_a_server_that_stops_is_not_ready(fake: FakeTriton, connected: Connect) -> None:
    """Unavailable is no refusal to list."""
    fake.failures["RepositoryIndex"] = Failure(grpc.StatusCode.UNAVAILABLE, "Server is stopping")
    async with connected(fake) as (connection, _):
        with pytest.raises(AttemptError, match="Server is stopping"):
            await connection.ready(5.0)
    assert fake.asked == ["RepositoryIndex"]


async def test_queue_reports_are_of_what_came_since(fake: FakeTriton, connected: Connect) -> None:
    """Averages of the models watched; the first answer is what later ones are counted from."""
    fake.counters = {("m", 1): (10_000, 10_000, 10), ("other", 1): (0, 0, 0)}
    async with connected(fake) as (connection, versions):
        versions.watch(ONE)
        assert await connection.queue_report() is None
        fake.counters = {("m", 1): (4_010_000, 2_010_000, 12), ("other", 1): (9**9, 9**9, 50)}
        assert await connection.queue_report() == QueueReport(0.002, 0.001, 2)
        assert await connection.queue_report() == QueueReport(0.0, 0.0, 0)
        fake.counters = {("m", 1): (3_000_000, 1_000_000, 1)}
        assert await connection.queue_report() == QueueReport(0.003, 0.001, 1), "counted anew after a restart"


async def test_an_endpoint_without_statistics_reports_nothing(fake: FakeTriton, connected: Connect) -> None:
    """And is not asked again."""
    fake.failures["ModelStatistics"] = RESTRICTED
    async with connected(fake) as (connection, _):
        assert await connection.queue_report() is None
        assert await connection.queue_report() is None
    assert fake.asked == ["ModelStatistics"]


async def test_streams_end_with_their_status(fake: FakeTriton, connected: Connect) -> None:
    """Responses before a failure are given."""

    async def stream(_: Any) -> AsyncIterator[pb.ModelStreamInferResponse]:
        yield pb.ModelStreamInferResponse(error_message="one")
        raise Failure(grpc.StatusCode.INVALID_ARGUMENT, "bad")

    fake.models["m"].stream = stream
    async with connected(fake) as (connection, _):
        responses = connection.stream_infer(ASKED, message(), 30.0)
        assert (await anext(responses)).error_message == "one"
        with pytest.raises(InvalidRequest, match="bad"):
            await anext(responses)


async def test_closing_a_stream_calls_it_off(fake: FakeTriton, connected: Connect) -> None:
    """The endpoint is told."""

    async def stream(_: Any) -> AsyncIterator[pb.ModelStreamInferResponse]:
        yield pb.ModelStreamInferResponse()
        await asyncio.Event().wait()

    fake.models["m"].stream = stream
    async with connected(fake) as (connection, _):
        async with aclosing(connection.stream_infer(ASKED, message(), 30.0)) as responses:
            await anext(responses)
        await fake.seen[0].cancelled.wait()


async def test_loading_and_unloading_are_asked_for(fake: FakeTriton, connected: Connect) -> None:
    """A load that fails says why."""
    async with connected(fake) as (connection, _):
        await connection.load("m", '{"backend": "python"}', 5.0)
        await connection.unload("m", 5.0)
        fake.failures["RepositoryModelLoad"] = Failure(
            grpc.StatusCode.INTERNAL, "failed to load 'm', no file"
        )
        with pytest.raises(AttemptError, match="failed to load 'm', no file"):
            await connection.load("m")
        assert [entry[:3] for entry in await connection.index(5.0)] == [("m", 1, "READY"), ("m", 2, "READY")]


def test_tls_files_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    """Once running, those read before stay in use."""
    options = FleetOptions(name="f", tls=TlsClientOptions(ca=tmp_path / "ca.pem"))
    with pytest.raises(ConfigError, match="fleet 'f': TLS files cannot be read"):
        Connector(options, Versions())


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("t.svc", False),
    ],
)
def test_only_loopback_is_this_host(host: str, local: bool) -> None:
    """Shared memory is tried nowhere else."""
    assert is_local(Address(host, 1)) is local
