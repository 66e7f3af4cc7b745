"""`gateway serve`: runs the server on uvloop from start-up to a signal, and says what happens meanwhile."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import socket
import sys
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, Self

import uvloop
from rich.console import Console

from gateway.backends.onnxruntime.cpus import usable_cpus
from gateway.backends.onnxruntime.memory import share_heaps
from gateway.commands.failure import CommandFailed, Exit
from gateway.commands.monitor_extra import check_installed
from gateway.commands.progress import load_progress
from gateway.commands.ready import BoundPorts, Listening, announcement, ready_json
from gateway.commands.serve_monitor import MonitorProcess, monitor_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from types import TracebackType

    from gateway.config.schema import GatewayConfig
    from gateway.core.interfaces import LifecycleObserver, ModelCatalog


_EVERY_IPV4: Final = "0.0.0.0"  # noqa: S104 - compared with, not bound
_EVERY_IPV6: Final = "::"

SWITCH_S: Final = 0.001
"""How long a thread runs Python code before it gives way to the event loop, which waits for that after every
look at its sockets. While a metrics page of 100 models was rendered, 140 ms, a health check took 5.4 ms at
Python's default of 5 ms, and 1.6 with this; the page took no longer."""
LEAST_HEAPS: Final = 2
"""Of the C library: the event loop's, and one for the threads that load and run models."""
TEARDOWN_S: Final = 3.0
"""Time to free everything once the grace period is over; then the process ends all the same. Only native code
that cannot be interrupted, a run or a load of a model, takes longer, and an orchestrator kills what does."""


class ServingGateway(Protocol):
    """What this command needs of the composed server; entering it binds the ports and begins to load."""

    @property
    def ports(self) -> BoundPorts:
        """The ports bound."""

    @property
    def catalog(self) -> ModelCatalog:
        """What is served."""

    async def __aenter__(self) -> Self:
        """Bind and begin to load."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free everything."""

    async def settled(self) -> None:
        """Wait until every model that was to be loaded at start is READY or FAILED."""

    async def serve(self) -> None:
        """Serve until `stop`, then drain within the configured grace period and return."""

    def stop(self) -> None:
        """Begin the graceful shutdown; harmless when repeated."""


if TYPE_CHECKING:
    GatewayFactory = Callable[[GatewayConfig, Sequence[LifecycleObserver]], ServingGateway]


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How the command itself behaves.

    Attributes:
        as_json: one JSON line on standard output when start-up is over, everything else on standard error.
        out: where people are told what happens.
        last_resort: ends the process when freeing everything takes too long.
        monitor: configuration file of a monitor to run beside it; None: none.
    """

    as_json: bool
    out: Console
    last_resort: threading.Timer
    monitor: Path | None = None


def serve(
    config: GatewayConfig,
    make_gateway: GatewayFactory,
    *,
    as_json: bool,
    monitor: Path | None = None,
    teardown_s: float = TEARDOWN_S,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted and return.

    A second signal ends the process at once with exit code 1, and so does a teardown that takes too long.
    A model that cannot be loaded ends nothing: the server stays up, not ready if the model is required, so
    that an orchestrator can look at it.

    Args:
        config: what to serve.
        make_gateway: builds the server from the configuration and observers of the models' lifecycle.
        as_json: print one JSON line on standard output when start-up is over; everything else goes to
            standard error.
        monitor: configuration file of a monitor to run beside it.
        teardown_s: time to free everything after the grace period.

    Raises:
        CommandFailed: a port or address cannot be bound, or the monitor's extra is not installed.
        ConfigError: the monitor's file is wrong.
    """
    check_addresses(config)
    if monitor is not None:
        from gateway.config.monitor import load_monitor_config  # noqa: PLC0415 - 0.1 s that few need

        check_installed()
        load_monitor_config(monitor)
    out = Console(stderr=as_json, highlight=False)
    options = ServeOptions(as_json, out, _last_resort(teardown_s, out), monitor)
    sys.setswitchinterval(SWITCH_S)
    share_heaps(max(LEAST_HEAPS, usable_cpus()))
    try:
        uvloop.run(_serve(config, make_gateway, options))
    except OSError as exc:
        if exc.errno not in {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES}:
            raise
        # Somebody took the port between the check and the binding: the check can now name it.
        check_addresses(config)
        raise CommandFailed(f"cannot bind: {exc.strerror or exc}") from exc
    finally:
        options.last_resort.cancel()


def _last_resort(teardown_s: float, out: Console) -> threading.Timer:
    """Return a timer, not started, that ends the process.

    In a thread: the event loop itself, or the end of its executor, may be what waits.
    """

    def end() -> None:
        out.print(
            f"a model still ran {teardown_s:g} s after the grace period: ending without it", markup=False
        )
        os._exit(Exit.FAILED)

    timer = threading.Timer(teardown_s, end)
    timer.daemon = True
    return timer


async def _serve(config: GatewayConfig, make_gateway: GatewayFactory, options: ServeOptions) -> None:
    progress = load_progress(options.out)
    async with (
        _monitor(options.monitor),
        make_gateway(config, [progress]) as gateway,
        asyncio.TaskGroup() as group,
    ):
        _stop_on_signals(gateway, options.out)
        serving = group.create_task(gateway.serve())
        starting = group.create_task(gateway.settled())
        with progress:
            # A signal may come while models still load: then `serve` returns first.
            await asyncio.wait((serving, starting), return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and not serving.done():
            _settle_garbage_collector()
            _announce(config, gateway, options)
        await serving
        starting.cancel()
        options.last_resort.start()


def _monitor(file: Path | None) -> AbstractAsyncContextManager[object]:
    return nullcontext() if file is None else MonitorProcess(monitor_command(file))


def _settle_garbage_collector() -> None:
    """Take what start-up made out of the collector's sight: it lives as long as the process.

    A full collection walks every object it sees and stops the event loop for tens of milliseconds; what a
    request makes is freed by reference counting.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _announce(config: GatewayConfig, gateway: ServingGateway, options: ServeOptions) -> None:
    server = config.server
    listening = Listening(
        server.host,
        server.admin_host,
        gateway.ports,
        http_secure=server.http.tls is not None,
        grpc_secure=server.grpc.tls is not None,
    )
    # Not through the console: it would break long lines, and the snippets must stay whole.
    text = announcement(listening, gateway.catalog)
    stream = sys.stderr if options.as_json else sys.stdout
    stream.write(text)
    stream.flush()
    if options.as_json:
        sys.stdout.write(ready_json(listening, gateway.catalog) + "\n")
        sys.stdout.flush()


def _stop_on_signals(gateway: ServingGateway, out: Console) -> None:
    received: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        received.append(number)
        if len(received) > 1:
            # At once: a run of a model in native code could not be interrupted in any other way.
            os._exit(Exit.FAILED)
        out.print(f"{number.name}: finishing what was accepted; a second signal stops at once", markup=False)
        gateway.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)


def check_addresses(config: GatewayConfig) -> None:
    """Bind every fixed port once and let it go, before a model is loaded for nothing.

    gRPC shares its port with any other process that does so too: without this check a second gateway
    would quietly take half of the first one's calls.

    Raises:
        CommandFailed: a port is taken, needs privileges, or is given twice; or the address is not ours.
    """
    for name, other, port in repeated_ports(config):
        raise CommandFailed(f"port {port} is given twice: for {other} and for {name}")
    for name, host, port in listeners(config):
        if port:
            _try_bind(name, host, port)


def repeated_ports(config: GatewayConfig) -> Iterator[tuple[str, str, int]]:
    """Yield each listener with another one before it that it would clash with, and the port. Pure."""
    taken: list[tuple[str, str, int]] = []
    for name, host, port in listeners(config):
        for other, other_host, other_port in taken:
            if port and port == other_port and _overlap(host, other_host):
                yield name, other, port
                break
        taken.append((name, host, port))


def _overlap(host: str, other: str) -> bool:
    """Whether two listeners on these hosts cannot have one port."""
    hosts = {host, other}
    if len(hosts) == 1 or "" in hosts:
        return True
    families = {":" in name for name in hosts}
    return len(families) == 1 and bool({_EVERY_IPV4, _EVERY_IPV6} & hosts)


def listeners(config: GatewayConfig) -> Iterator[tuple[str, str, int]]:
    """Yield name, host and port of every listener; port 0 is any free one."""
    ports: Mapping[str, int] = config.server.ports.model_dump()
    for name, port in ports.items():
        yield name, config.server.admin_host if name == "admin" else config.server.host, port


def _try_bind(name: str, host: str, port: int) -> None:
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as probe:
                # As servers do: connections of the last run that linger in TIME_WAIT are no obstacle.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as exc:
        raise CommandFailed(_bind_failure(name, host, port, exc)) from exc


def _bind_failure(name: str, host: str, port: int, error: OSError) -> str:
    flag = f"--{name}-port"
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} ({name}) is already in use on {host}: choose another with {flag}, 0 for a free one"
        )
    if error.errno == errno.EACCES:
        return f"port {port} ({name}) needs privileges: choose one above 1023 with {flag}"
    option = "--admin-host" if name == "admin" else "--host"
    reason = error.strerror or str(error)
    return f"cannot bind {name} to {host}: {reason}; {option} must be an address of this machine"
