"""What is under load: a gateway started for it, a server that runs already, or a peer; then all alike."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loadtests import peers
from loadtests.peers.base import PeerUnavailable, Place
from loadtests.peers.wires import OpenInference
from loadtests.scenario import AddressTarget, GatewayTarget, PeerTarget
from loadtests.served import ServedGateway

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from loadtests.peers.wires import Wire
    from loadtests.requests_on_file import BenchModel
    from loadtests.scenario import Target

VENVS: Final = Path(__file__).resolve().parent.parent / "build" / "peers"
"""Where peers are installed, each in a venv of its name."""


class TargetUnavailable(Exception):
    """A target cannot be started or does not speak the protocol asked for; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A target that answers.

    Attributes:
        label: as printed.
        settings: what influences its figures.
        addresses: protocol -> host and port.
        wire: how it is asked and read.
        pid: root of its process tree; None: not on this machine.
        metrics_url: of a gateway's metrics page; None: it has none.
        echoes: it runs no model and answers with its input.
        connections: numbers of gRPC connections to try where the scenario leaves them open.
    """

    label: str
    settings: Mapping[str, str]
    addresses: Mapping[str, tuple[str, int]]
    wire: Wire
    pid: int | None = None
    metrics_url: str | None = None
    echoes: bool = False
    connections: tuple[int, ...] = ()

    def address(self, protocol: str) -> tuple[str, int]:
        """Return where a protocol is spoken.

        Raises:
            TargetUnavailable: nowhere.
        """
        if (found := self.addresses.get(protocol)) is None:
            spoken = ", ".join(self.addresses)
            raise TargetUnavailable(f"{self.label} does not speak {protocol}, only {spoken}")
        return found


@contextmanager
def serving(target: Target, model: BenchModel, core: int, folder: Path) -> Iterator[Served]:
    """Lend a target that answers requests for a model; whatever was started for it is gone after the block.

    Args:
        target: as the scenario has it.
        model: to serve.
        core: where to keep what is started.
        folder: an existing one, for configuration and logs.

    Raises:
        TargetUnavailable: it cannot be started.
    """
    match target:
        case GatewayTarget():
            with _gateway(target, model, core, folder) as served:
                yield served
        case PeerTarget():
            with _peer(target, model, core, folder) as served:
                yield served
        case AddressTarget():
            yield _running(target)


@contextmanager
def _gateway(target: GatewayTarget, model: BenchModel, core: int, folder: Path) -> Iterator[Served]:
    own = Path(tempfile.mkdtemp(prefix="gateway-", dir=folder))
    with ExitStack() as stack:
        starting = ServedGateway(
            [model], core, own, overlay=target.config, flags=target.flags, package=target.package
        )
        try:
            gateway = stack.enter_context(starting)
        except RuntimeError as exc:
            raise TargetUnavailable(str(exc)) from exc
        yield Served(
            label=target.label,
            settings={
                "config": str(target.config),
                "flags": " ".join(target.flags),
                "package": str(target.package or ""),
            },
            addresses=_addresses(("127.0.0.1", gateway.http_port), ("127.0.0.1", gateway.grpc_port)),
            wire=OpenInference(),
            pid=gateway.pid,
            metrics_url=gateway.metrics_url,
        )


@contextmanager
def _peer(target: PeerTarget, model: BenchModel, core: int, folder: Path) -> Iterator[Served]:
    workdir = Path(tempfile.mkdtemp(prefix=f"{target.name}-", dir=folder))
    with ExitStack() as stack:
        try:
            peer = peers.find(target.name)
            peer.install(VENVS / target.name)
            place = Place(VENVS / target.name, model, workdir, str(core), target.max_batch_rows)
            running = stack.enter_context(peer.start(place))
            running.wait_ready()
        except (PeerUnavailable, LookupError, ImportError) as exc:
            raise TargetUnavailable(f"{target.name}: {exc}") from exc
        yield Served(
            label=peer.label,
            settings=peer.settings,
            addresses=running.addresses,
            wire=peer,
            pid=running.pid,
            echoes=getattr(peer, "echoes", False),
            connections=peer.connections,
        )


def _running(target: AddressTarget) -> Served:
    return Served(
        label=target.label,
        settings={},
        addresses=_addresses(_address(target.http), _address(target.grpc)),
        wire=OpenInference(),
        pid=target.pid,
        metrics_url=target.metrics,
    )


def _address(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise TargetUnavailable(f"{text!r} is no HOST:PORT")
    return host.strip("[]"), int(port)


def _addresses(http: tuple[str, int] | None, grpc: tuple[str, int] | None) -> dict[str, tuple[str, int]]:
    spoken = {"http-json": http, "http-binary": http, "grpc": grpc, "grpc-stream": grpc}
    return {protocol: address for protocol, address in spoken.items() if address is not None}
