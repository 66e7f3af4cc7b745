"""Gateways and clients that the acceptance tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.clients import KINDS, Client, connected
from tests.acceptance.process import ROOT, RunningGateway, serving
from tests.acceptance.zoo import write_config, write_zoo, zoo_config

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway with the small models of `zoo`, in mode explicit."""
    directory = tmp_path_factory.mktemp("zoo")
    write_zoo(directory / "repository")
    config = write_config(directory / "gateway.yaml", zoo_config(directory / "repository"))
    with serving(directory / "log", "--config", config) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway with what `make run` serves."""
    log = tmp_path_factory.mktemp("demo") / "log"
    with serving(log, "--config", ROOT / "configs" / "demo.yaml") as gateway:
        yield gateway


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, zoo: RunningGateway) -> Iterator[Client]:
    """Each of the four clients in turn, connected to the zoo."""
    with connected(request.param, zoo) as client:
        yield client
