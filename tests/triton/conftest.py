"""Real Triton servers that tests share, gateways in front of them, and the clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.clients import KINDS, Client, connected
from tests.acceptance.process import NATIVE, serving, started_once
from tests.acceptance.zoo import NEVER_S, write_config
from tests.triton import models
from tests.triton.server import TritonServer, missing, triton
from tests.triton.zoo import zoo_models

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.acceptance.process import Gateways, RunningGateway


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses a `client` through each in turn, unless it says itself through which `kind`."""
    chosen = {mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")}
    if "kind" in metafunc.fixturenames and not chosen & {"kind", ("kind", "transport")}:
        metafunc.parametrize("kind", KINDS)


@pytest.fixture(scope="session", autouse=True)
def _installed() -> None:
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture
def transport() -> str:
    """The gateway's gRPC transport, where the test does not say which."""
    return NATIVE


@pytest.fixture(scope="session")
def triton_zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server with the models of `zoo`."""
    repository = models.write(tmp_path_factory.mktemp("triton-zoo"), zoo_models())
    with triton(repository) as server:
        yield server


@pytest.fixture(scope="session")
def zoos(triton_zoo: TritonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    directory = tmp_path_factory.mktemp("gateway-of-zoo")
    config = write_config(directory / "gateway.yaml", _zoo_config(triton_zoo))
    with started_once(
        lambda transport: serving(directory / f"{transport}.log", "--config", config, transport=transport)
    ) as gateways:
        yield gateways


def _zoo_config(server: TritonServer) -> dict[str, object]:
    """Return the configuration: as `tests.acceptance.zoo.zoo_config`, the models being Triton's."""
    waits = {"max_batch_rows": 4, "max_delay_s": NEVER_S}
    ranks = {"priority_levels": 2, "default_priority": 2, "priority_ageing_s": NEVER_S}
    batched_here = {"backend": "triton", "triton": {"batching": "gateway"}}
    served = [name for name in zoo_models() if name not in {"patient", "ranked"}]
    return {
        "triton": [{"name": "zoo", "endpoints": [server.grpc], "serve": served}],
        "models": [
            {"name": "patient", **batched_here, "batching": waits},
            {"name": "ranked", **batched_here, "batching": {**waits, **ranks}},
        ],
    }


@pytest.fixture
def zoo(zoos: Gateways, transport: str) -> RunningGateway:
    """A gateway whose models all run on Triton."""
    return zoos(transport)


@pytest.fixture
def client(kind: str, zoo: RunningGateway) -> Iterator[Client]:
    """Each of the four clients in turn, connected to the gateway."""
    with connected(kind, zoo) as client:
        yield client


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An empty model repository."""
    path = tmp_path / "repository"
    path.mkdir()
    return path
