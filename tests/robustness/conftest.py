"""One real gateway for all bad input, with a small body limit, and the check that nothing did it harm."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import pytest

from loadtests.soak_grpc import channel, unary
from loadtests.soak_http import HttpConnection
from loadtests.soak_load import grpc_infer, http_infer
from loadtests.soak_models import small_repository
from loadtests.soak_server import GatewayProcess, settings
from tests.acceptance.process import NATIVE
from tests.robustness.http_corpus import LIMIT_BYTES, MIB, binary_post, posted, tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Shared: TypeAlias = "Callable[[str], Warm]"

WARM_UP_ROUNDS = 5


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_repository(tmp_path_factory.mktemp("models"))


@dataclass(frozen=True)
class Warm:
    """A gateway that has taken every path once, and what it held then."""

    server: GatewayProcess
    rss_bytes: int


@pytest.fixture(scope="session")
def shared(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A gateway on each gRPC transport, started when it is first asked for.

    Timeouts are short enough to wait for, limits low enough to reach.
    """
    # What is freed goes back to the kernel, so that memory is what a request takes and not what those before
    # it left in the allocator.
    returning = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}

    def started(transport: str) -> Warm:
        config = settings(
            repository,
            limits={"max_body_bytes": LIMIT_BYTES},
            http={"header_timeout_s": 1.0, "body_timeout_s": 1.0},
            grpc={"transport": transport},
        )
        server = stack.enter_context(GatewayProcess(config, tmp_path_factory.mktemp(transport), returning))
        asyncio.run(_warm_up(server))
        return Warm(server, server.usage().rss_bytes)

    with ExitStack() as stack:
        yield cache(started)


@pytest.fixture
def transport() -> str:
    """The gateway's gRPC transport, where the test does not say which."""
    return NATIVE


@pytest.fixture
def gateway(shared: Shared, transport: str) -> GatewayProcess:
    return shared(transport).server


async def _warm_up(server: GatewayProcess) -> None:
    """Take every path once with good data, large bodies too, so that what is left is what bad input costs."""
    rows = 64
    text = json.dumps({"inputs": [tensor(shape=[rows, 4], data=[0.5] * rows * 4)]}).encode()
    # White space that compresses no better than real data does.
    large = text + bytes(random.Random(0).choices(b" \t\r\n", k=LIMIT_BYTES - len(text)))
    for _ in range(WARM_UP_ROUNDS):
        await good_requests(server)
        async with HttpConnection(server.http_port) as connection:
            for data in (
                posted(large),
                posted(gzip.compress(large, 1), Content_Encoding="gzip"),
                binary_post(bytes(16 * rows), shape=[rows, 4]),
            ):
                assert (await connection.exchange(data)).status == 200


async def good_requests(server: GatewayProcess) -> None:
    """Ask once over HTTP and once over gRPC, on new connections."""
    async with HttpConnection(server.http_port) as connection:
        assert (await connection.exchange(http_infer((1.0, 2.0, 3.0, 4.0)))).status == 200
    async with channel(server.grpc_port) as over:
        await unary(over)(grpc_infer((1.0, 2.0, 3.0, 4.0)))


@pytest.fixture(autouse=True)
def _unharmed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check, around every test that uses the shared gateway, that it was not harmed."""
    if "gateway" not in request.fixturenames:
        yield
        return
    shared: Shared = request.getfixturevalue("shared")
    warm = shared(request.getfixturevalue("transport"))
    server = warm.server
    server.reset_peak()
    yield
    asyncio.run(good_requests(server))
    grown_bytes = server.usage().peak_bytes - warm.rss_bytes
    assert grown_bytes <= LIMIT_BYTES + 16 * MIB, f"memory grew by {grown_bytes / MIB:.1f} MiB"
