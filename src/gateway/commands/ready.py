"""Writes what `gateway serve` says when start-up is over: addresses, models, how to try each, what failed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gateway.commands.samples import SampleOptions, declared_shapes
from gateway.commands.snippets import curl_snippet, infer_url, python_snippet
from gateway.core.types import VersionState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.core.interfaces import ModelCatalog, ServedVersion
    from gateway.core.types import VersionStatus

_ANY_HOST = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104  read, not bound


class BoundPorts(Protocol):
    """The TCP ports in use, after 0 was replaced by a free one."""

    @property
    def http(self) -> int:
        """Inference over HTTP."""

    @property
    def grpc(self) -> int:
        """Inference over gRPC."""

    @property
    def metrics(self) -> int:
        """Prometheus metrics."""

    @property
    def admin(self) -> int:
        """Administration."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the server listens.

    Attributes:
        host: address bound by HTTP, gRPC and metrics.
        admin_host: address bound by administration.
        ports: the ports chosen.
        http_secure: HTTP listeners use TLS.
        grpc_secure: gRPC uses TLS.
    """

    host: str
    admin_host: str
    ports: BoundPorts
    http_secure: bool = False
    grpc_secure: bool = False

    @property
    def http_url(self) -> str:
        """URL of the HTTP port, as a client on this machine writes it."""
        return f"{'https' if self.http_secure else 'http'}://{_authority(self.host, self.ports.http)}"


def _authority(host: str, port: int) -> str:
    reachable = _ANY_HOST.get(host, host)
    return f"[{reachable}]:{port}" if ":" in reachable else f"{reachable}:{port}"


def ready_json(listening: Listening, catalog: ModelCatalog) -> str:
    """Return the one line of `--ready-json`.

    Keys: `http_port`, `grpc_port`, `metrics_port`, `admin_port`, `ready` (every required model is), and
    `models`: name, version, state and reason of each version known.
    """
    ports = listening.ports
    models = [
        {"name": s.id.model, "version": s.id.number, "state": s.state.value, "reason": s.reason}
        for s in catalog.index()
    ]
    line = {
        "http_port": ports.http,
        "grpc_port": ports.grpc,
        "metrics_port": ports.metrics,
        "admin_port": ports.admin,
        "ready": catalog.is_ready(),
        "models": models,
    }
    return json.dumps(line)


def announcement(listening: Listening, catalog: ModelCatalog) -> str:
    """Return the text for people; its snippets work when they are copied word for word."""
    lines = [*_summary(catalog), *_addresses(listening), *_failures(catalog.index())]
    for version in _newest(catalog.served()):
        lines += ["", *_model(listening.http_url, version, catalog.ready_versions(version.id.model))]
    return "\n".join(lines) + "\n"


def _summary(catalog: ModelCatalog) -> Iterator[str]:
    if catalog.is_ready():
        yield "Ready."
    else:
        yield "NOT READY: the server is up, but health checks fail until every required model is ready."


def _addresses(listening: Listening) -> Iterator[str]:
    ports = listening.ports
    yield f"  HTTP     {listening.http_url}"
    secure = " (TLS)" if listening.grpc_secure else ""
    yield f"  gRPC     {_authority(listening.host, ports.grpc)}{secure}"
    scheme = listening.http_url.partition(":")[0]
    yield f"  metrics  {scheme}://{_authority(listening.host, ports.metrics)}/metrics"
    yield f"  admin    {scheme}://{_authority(listening.admin_host, ports.admin)}"


def _failures(index: Sequence[VersionStatus]) -> Iterator[str]:
    for status in index:
        if status.state is VersionState.FAILED:
            yield f"  FAILED   {label(status)}: {status.reason}"


def label(status: VersionStatus) -> str:
    """Return `model version 3`, or the model's name alone where no version is known."""
    return f"{status.id.model} version {status.id.number}" if status.id.number else status.id.model


def _newest(served: Sequence[ServedVersion]) -> list[ServedVersion]:
    newest: dict[str, ServedVersion] = {}
    for version in sorted(served, key=lambda v: (v.id.model, v.id.number)):
        newest[version.id.model] = version
    return list(newest.values())


def _model(base_url: str, version: ServedVersion, numbers: Sequence[int]) -> Iterator[str]:
    yield f"{version.id.model}, version{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
    if version.signature.decoupled:
        yield "answers with a stream: call it by ModelStreamInfer over gRPC"
        return
    inputs = version.signature.inputs
    options = SampleOptions(shapes=declared_shapes(version.spec, inputs))
    url = infer_url(base_url, version.id.model)
    # Not indented: Python copied from a terminal must begin in the first column.
    yield curl_snippet(url, inputs, options)
    yield ""
    yield python_snippet(url, inputs, options)
