"""A process that runs the serve command around a scripted server.

The argument says how it behaves: `graceful` returns from `serve` as soon as it is told to stop; `stuck` never
does; `loading` is never settled; `clinging` returns, but a thread that never ends keeps it from being freed.
`--ready-json` may follow.
"""

import asyncio
import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from gateway.app import Ports
from gateway.commands.serve import TEARDOWN_S, serve
from gateway.config.schema import GatewayConfig, PortSettings, ServerSettings
from gateway.core.interfaces import LifecycleObserver
from tests.commands.catalog import FixedCatalog, status


class ScriptedGateway:
    """A `ServingGateway`."""

    ports = Ports(http=1, grpc=2, metrics=3, admin=4)
    catalog = FixedCatalog([status("digits", 1)])

    def __init__(self, behaviour: str, observers: Sequence[LifecycleObserver]) -> None:
        self._behaviour = behaviour
        self._observers = observers
        self._stopped = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._behaviour == "clinging":
            await asyncio.to_thread(threading.Event().wait)
        sys.stderr.write("freed\n")

    async def settled(self) -> None:
        for row in self.catalog.rows:
            for observer in self._observers:
                observer.on_loaded(row, 0.5)
        if self._behaviour == "loading":
            sys.stderr.write("still loading\n")
            await asyncio.get_running_loop().create_future()

    async def serve(self) -> None:
        await self._stopped.wait()
        if self._behaviour == "stuck":
            sys.stderr.write("draining\n")
            await asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        self._stopped.set()


if __name__ == "__main__":
    free_ports = ServerSettings(ports=PortSettings(http=0, grpc=0, metrics=0, admin=0))
    serve(
        GatewayConfig(server=free_ports),
        lambda _, observers: ScriptedGateway(sys.argv[1], observers),
        as_json="--ready-json" in sys.argv,
        teardown_s=0.05 if sys.argv[1] == "clinging" else TEARDOWN_S,
    )
