"""Gateways and clients that the acceptance tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.clients import WAYS, Client, connected
from tests.acceptance.process import NATIVE, ROOT, serving, started_once
from tests.acceptance.zoo import write_config, write_zoo, zoo_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.acceptance.process import Gateways, RunningGateway


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses a `client` through each in turn, unless it says itself through which `kind`."""
    chosen = {mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")}
    if "kind" in metafunc.fixturenames and not chosen & {"kind", ("kind", "transport")}:
        metafunc.parametrize(("kind", "transport"), WAYS)


@pytest.fixture
def transport() -> str:
    """The gateway's gRPC transport, where the test does not say which."""
    return NATIVE


@pytest.fixture(scope="session")
def zoos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    directory = tmp_path_factory.mktemp("zoo")
    write_zoo(directory / "repository")
    config = write_config(directory / "gateway.yaml", zoo_config(directory / "repository"))
    with started_once(
        lambda transport: serving(directory / f"{transport}.log", "--config", config, transport=transport)
    ) as gateways:
        yield gateways


@pytest.fixture(scope="session")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    directory, config = tmp_path_factory.mktemp("demo"), ROOT / "configs" / "demo.yaml"
    with started_once(
        lambda transport: serving(directory / f"{transport}.log", "--config", config, transport=transport)
    ) as gateways:
        yield gateways


@pytest.fixture
def zoo(zoos: Gateways, transport: str) -> RunningGateway:
    """A gateway with the small models of `zoo`, in mode explicit."""
    return zoos(transport)


@pytest.fixture
def demo(demos: Gateways, transport: str) -> RunningGateway:
    """A gateway with what `make run` serves."""
    return demos(transport)


@pytest.fixture
def client(kind: str, zoo: RunningGateway) -> Iterator[Client]:
    """Each of the four clients in turn, connected to the zoo."""
    with connected(kind, zoo) as client:
        yield client
