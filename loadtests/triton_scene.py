"""Real Triton servers behind one gateway, for what is measured of them: endpoints, proxies, counts."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.parser import text_string_to_metric_families

from loadtests.soak_http import fetch
from loadtests.soak_models import OFFSET, offset_model
from loadtests.soak_server import GatewayProcess
from tests.triton import models
from tests.triton.proxy import FaultProxy, fault_proxy
from tests.triton.server import TritonServer, triton

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

VERSIONS: Final = (1, 2)
_FLEET: Final = "fleet"
ANY_PORTS: Final = {"http": 0, "grpc": 0, "metrics": 0, "admin": 0}


@dataclass(frozen=True)
class Endpoint:
    """A server and the proxy through which the gateway reaches it."""

    server: TritonServer
    proxy: FaultProxy


@dataclass(frozen=True, slots=True)
class Counts:
    """What the gateway has counted of its fleet since its start.

    Attributes:
        attempts: by address and outcome.
        decisions: by name.
    """

    attempts: Counter[tuple[str, str]]
    decisions: Counter[str]

    def since(self, before: Counts) -> Counts:
        """Return what was counted after `before`."""
        return Counts(self.attempts - before.attempts, self.decisions - before.decisions)

    def good(self, endpoint: Endpoint) -> int:
        """Return the attempts that this endpoint answered."""
        return self.attempts[endpoint.proxy.address, "ok"]


class FleetGateway(GatewayProcess):
    """A gateway before Triton servers."""

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    async def counts(self) -> Counts:
        """Return what it has counted so far."""
        page = (await fetch(self.metrics_port, "GET", "/metrics")).body.decode()
        attempts: Counter[tuple[str, str]] = Counter()
        decisions: Counter[str] = Counter()
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == "gateway_remote_attempts_total":
                    attempts[sample.labels["endpoint"], sample.labels["outcome"]] += int(sample.value)
                elif sample.name == "gateway_remote_decisions_total":
                    decisions[sample.labels["decision"]] += int(sample.value)
        return Counts(attempts, decisions)

    async def shown(self, endpoint: Endpoint) -> dict[str, Any]:
        """Return what administration shows of an endpoint."""
        page = (await fetch(int(self.ready["admin_port"]), "GET", "/fleets")).json
        (fleet,) = page["fleets"]
        (found,) = [e for e in fleet["endpoints"] if e["address"] == endpoint.proxy.address]
        return dict(found)

    async def in_use(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint is given requests for every version."""
        shown = await self.shown(endpoint)
        return bool(shown["state"] == "healthy" and shown["models"].get(OFFSET) == list(VERSIONS))


@contextmanager
def endpoints(count: int) -> Iterator[Sequence[Endpoint]]:
    """Run servers with both versions of the offset model, in mode explicit, each behind a proxy."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        offset = models.of_onnx({version: offset_model(version) for version in VERSIONS})
        repository = models.write(directory / "repository", {OFFSET: offset})
        servers = [
            stack.enter_context(triton(repository, mode="explicit", load=["*"], started=False))
            for _ in range(count)
        ]
        for server in servers:
            server.start(wait=False)
        for server in servers:
            server.wait_ready()
        yield [Endpoint(server, stack.enter_context(fault_proxy(server.grpc_port))) for server in servers]


@contextmanager
def gateway(
    fleet: Sequence[Endpoint], *, options: Mapping[str, Any], more: Mapping[str, Any]
) -> Iterator[FleetGateway]:
    """Run a gateway before endpoints.

    Args:
        fleet: the endpoints.
        options: of the fleet, beside its name and addresses.
        more: further sections of the configuration.
    """
    addresses = [endpoint.proxy.address for endpoint in fleet]
    config = {
        "server": {"ports": ANY_PORTS},
        "triton": [{"name": _FLEET, "endpoints": addresses, "serve": [OFFSET], **options}],
        **more,
    }
    with tempfile.TemporaryDirectory() as name, FleetGateway(config, Path(name)) as process:
        yield process
