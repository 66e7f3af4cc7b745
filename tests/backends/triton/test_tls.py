"""Endpoints that speak TLS, and that ask who asks; operators are told what is wrong, clients are not."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio
import pytest
from tritonclient.grpc import service_pb2

from gateway._proto import open_inference_pb2 as pb
from gateway.core.errors import ConfigError
from tests.backends.triton.certificates import Authority, Pair
from tests.backends.triton.fake import FakeTriton, model
from tests.fleets.stage import Served, gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Serving = Callable[..., AbstractAsyncContextManager[Served]]

HOST = "127.0.0.1"
ELSEWHERE = "triton.example"
_UNARY = ("ServerLive", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex")


@dataclass
class SecuredTriton(FakeTriton):
    """A FakeTriton that shows a certificate; `clients` has the CA of those that it asks for in turn."""

    pair: Pair | None = None
    clients: Path | None = None

    async def __aenter__(self) -> Self:
        """Start, on the same port as before if it ran before."""
        assert self.pair is not None
        methods: dict[str, Any] = {name: self._handler(name) for name in _UNARY}
        methods["ModelInfer"] = self._infer
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            name: grpc.unary_unary_rpc_method_handler(
                method,
                request_deserializer=getattr(pb, f"{name}Request").FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
            for name, method in methods.items()
        }
        service = "inference.GRPCInferenceService"
        credentials = grpc.ssl_server_credentials(
            [(self.pair.key.read_bytes(), self.pair.certificate.read_bytes())],
            root_certificates=None if self.clients is None else self.clients.read_bytes(),
            require_client_auth=self.clients is not None,
        )
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
        self.port = self._server.add_secure_port(f"{HOST}:{self.port}", credentials)
        await self._server.start()
        return self


@dataclass
class World:
    """Two authorities that know nothing of each other, and certificates by ours."""

    ours: Authority
    others: Authority
    here: Pair
    elsewhere: Pair


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("tls")
    ours, others = Authority(folder, "ours"), Authority(folder, "others")
    return World(ours, others, ours.issue(HOST), ours.issue(ELSEWHERE))


@pytest.fixture(params=["native", "grpcio"])
def serving(request: pytest.FixtureRequest) -> Serving:
    """Runs a gateway whose fleet `a` is an endpoint, spoken to as `tls` says; without it in the clear."""

    @asynccontextmanager
    async def serve(triton: FakeTriton, **tls: Path | str) -> AsyncIterator[Served]:
        fleet: dict[str, Any] = {
            "name": "a",
            "endpoints": [str(triton.address)],
            "serve": ["m"],
            "probe": {"interval_s": 0.05},
            "grpc_client": request.param,
        }
        if tls:
            fleet["tls"] = {key: str(value) for key, value in tls.items()}
        async with gateway({"triton": [fleet]}) as served:
            yield served

    return serve


def secured(pair: Pair, clients: Path | None = None) -> SecuredTriton:
    return SecuredTriton({"m": model(1)}, pair=pair, clients=clients)


async def endpoint(served: Served) -> tuple[str, str]:
    """Return the endpoint's state and the reason that the operator sees."""
    (fleet,) = (await served.admin("/fleets"))["fleets"]
    (only,) = fleet["endpoints"]
    return only["state"], only["reason"]


async def refusal(served: Served) -> str:
    """Return what a client is told of a request, and of the repository's index."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.infer("m", 1.0)
    index = await served.stub.RepositoryIndex(service_pb2.RepositoryIndexRequest())
    return f"{caught.value.details()} {index}"


async def test_an_endpoint_whose_authority_is_known_is_served(world: World, serving: Serving) -> None:
    """Probes and requests go over TLS."""
    async with secured(world.here) as triton, serving(triton, ca_file=world.ours.certificate) as served:
        assert await served.infer("m", 3.0) == ([3.0], "1")
        assert await endpoint(served) == ("healthy", "")


async def test_an_endpoint_of_another_name_is_served_under_that_name(world: World, serving: Serving) -> None:
    """`server_name` is what the certificate must be for, in place of the address."""
    tls: dict[str, Any] = {"ca_file": world.ours.certificate, "server_name": ELSEWHERE}
    async with secured(world.elsewhere) as triton, serving(triton, **tls) as served:
        assert await served.infer("m", 3.0) == ([3.0], "1")


async def test_an_endpoint_that_asks_who_asks_is_shown_the_gateways_certificate(
    world: World, serving: Serving
) -> None:
    """Mutual TLS."""
    own = world.ours.issue("gateway.example")
    tls = {"ca_file": world.ours.certificate, "cert_file": own.certificate, "key_file": own.key}
    async with secured(world.here, world.ours.certificate) as triton, serving(triton, **tls) as served:
        assert await served.infer("m", 3.0) == ([3.0], "1")


WRONG: dict[str, tuple[Callable[[World], FakeTriton], Callable[[World], dict[str, Any]], str]] = {
    "an authority that nobody knows": (
        lambda world: secured(world.here),
        lambda world: {"ca_file": world.others.certificate},
        "CERTIFICATE_VERIFY_FAILED",
    ),
    "a certificate for another host": (
        lambda world: secured(world.elsewhere),
        lambda world: {"ca_file": world.ours.certificate},
        "Hostname Verification",
    ),
    "another server_name": (
        lambda world: secured(world.here),
        lambda world: {"ca_file": world.ours.certificate, "server_name": ELSEWHERE},
        "Hostname Verification",
    ),
    "no certificate where one is asked for": (
        lambda world: secured(world.here, world.ours.certificate),
        lambda world: {"ca_file": world.ours.certificate},
        "it may ask for a certificate of the gateway",
    ),
    "a certificate by an authority that the endpoint does not know": (
        lambda world: secured(world.here, world.others.certificate),
        lambda world: {
            "ca_file": world.ours.certificate,
            "cert_file": world.here.certificate,
            "key_file": world.here.key,
        },
        "it may not accept the certificate of the gateway",
    ),
    "plain text where TLS is spoken": (
        lambda world: secured(world.here),
        lambda _: {},
        "it may expect TLS",
    ),
    "TLS where plain text is spoken": (
        lambda _: FakeTriton({"m": model(1)}),
        lambda world: {"ca_file": world.ours.certificate},
        "it may not speak TLS",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_is_wrong_is_told_to_the_operator_alone(
    wrong: str, world: World, capsys: pytest.CaptureFixture[str], serving: Serving
) -> None:
    """By administration and in the log; no request reaches the endpoint, and clients learn none of it."""
    made, tls, reason = WRONG[wrong]
    async with made(world) as triton, serving(triton, **tls(world)) as served:
        state, told = await endpoint(served)
        assert state == "ejected"
        assert reason in told
        assert reason in capsys.readouterr().err
        said = await refusal(served)
        assert not triton.seen
        assert not triton.asked
    assert_says_nothing(said, triton)


def assert_says_nothing(said: str, triton: FakeTriton) -> None:
    for secret in (str(triton.port), HOST, ELSEWHERE, "TLS", "SSL", "handshake", "certificate"):
        assert secret.lower() not in said.lower()


async def test_an_endpoint_that_comes_back_as_another_is_not_asked(
    world: World, tmp_path: Path, serving: Serving
) -> None:
    """What it served is unavailable, clients are not told why; it comes back with the certificate."""
    stranger = Authority(tmp_path, "stranger").issue(HOST)
    triton = secured(world.here)
    async with triton, serving(triton, ca_file=world.ours.certificate) as served:
        await served.infer("m", 1.0)
        await triton.__aexit__(None, None, None)
        triton.pair, before = stranger, len(triton.seen)
        async with triton:
            while "CERTIFICATE_VERIFY_FAILED" not in (await endpoint(served))[1]:
                await served.infer_or_fail("m", 1.0)
            said = await refusal(served)
            assert len(triton.seen) == before
        assert_says_nothing(said, triton)
        triton.pair = world.here
        async with triton:
            while (await endpoint(served))[0] != "healthy":
                await served.infer_or_fail("m", 1.0)
            assert await served.infer("m", 2.0) == ([2.0], "1")
        await triton.__aenter__()


UNUSABLE: dict[str, Callable[[World, Path], dict[str, Path]]] = {
    "a file that is not there": lambda _, bad: {"ca_file": bad.with_name("missing.pem")},
    "an authority that is no certificate": lambda _, bad: {"ca_file": bad},
    "a certificate that is none": lambda _, bad: {"cert_file": bad, "key_file": bad},
    "the key of another certificate": lambda world, _: {
        "cert_file": world.here.certificate,
        "key_file": world.elsewhere.key,
    },
}


@pytest.mark.parametrize("unusable", UNUSABLE)
async def test_files_that_cannot_be_used_end_the_start(
    unusable: str, world: World, tmp_path: Path, serving: Serving
) -> None:
    """Fleet and files are named; gRPC would take them, and fail each handshake without a reason."""
    bad = tmp_path / "bad.pem"
    bad.write_text("-----BEGIN NOTHING-----\n")
    tls = {"ca_file": world.ours.certificate, **UNUSABLE[unusable](world, bad)}
    async with secured(world.here) as triton:
        with pytest.raises(
            ConfigError, match=r"fleet 'a': TLS files cannot be read: .* \(ca_file /"
        ) as caught:
            async with serving(triton, **tls):
                pass
    assert all(str(path) in str(caught.value) for path in tls.values())
