"""The fleets of Triton servers of a running gateway: connections, backend, sources, and what is shown."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from gateway import wiring_triton as wiring
from gateway.admin.fleets import FleetRow
from gateway.config.triton_settings import fleet_of
from gateway.core.errors import ConfigError, ModelLoadError
from gateway.core.types import Device
from gateway.registry.fleet_versions import Listing
from gateway.registry.triton_source import TritonSource
from gateway.telemetry.remote_metrics import RemoteMetrics

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
    from types import TracebackType
    from typing import TypeAlias

    from gateway.backends.triton.control import FleetControl
    from gateway.backends.triton.model import TritonFleet
    from gateway.config.schema import GatewayConfig
    from gateway.config.triton_settings import FleetSettings
    from gateway.core.clock import Clock
    from gateway.core.interfaces import Backend, LoadedModel
    from gateway.core.options import ModelSpec
    from gateway.core.remote import EndpointView

    WarmUpRun: TypeAlias = Callable[[LoadedModel, ModelSpec], Awaitable[list[str]]]


class TritonFleets:
    """Every fleet under `triton:`; without one there is nothing, and nothing of Triton's is imported.

    Entering waits for no endpoint. Left after every model of theirs is closed.

    Args:
        config: the whole configuration.
        clock: time and timers.

    Attributes:
        metrics: what is scraped of fleets.
        backends: what runs their models, by name; valid once entered.
        sources: what follows each fleet's models; likewise.
    """

    def __init__(self, config: GatewayConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._resources = AsyncExitStack()
        self._fleets: dict[str, TritonFleet] = {}
        self._controls: dict[str, FleetControl] = {}
        self.metrics = RemoteMetrics(self.views)
        self.backends: Mapping[str, Backend] = {}
        self.sources: Sequence[TritonSource] = ()

    def views(self) -> Mapping[str, Sequence[EndpointView]]:
        """Return the endpoints of each fleet as they are now."""
        return {name: parts.fleet.views() for name, parts in self._fleets.items()}

    def shown(self) -> Sequence[FleetRow]:
        """Return what administration shows of each fleet."""
        return [
            FleetRow(
                name=name,
                now_s=self._clock.now_s(),
                capacity=parts.fleet.capacity,
                endpoints=parts.fleet.views(),
                ready={view.address: parts.versions.of(view.address) for view in parts.fleet.views()},
                serves=self._serves(name),
            )
            for name, parts in self._fleets.items()
        ]

    def leave(self) -> None:
        """Let fleets keep what is loaded there from here on: this process goes."""
        for control in self._controls.values():
            control.leave()

    def _serves(self, fleet: str) -> Mapping[str, str]:
        """Return public name -> name there, of every model that is known to run on a fleet."""
        published = {
            model.name: (settings.model or model.name)
            for model in self._config.models
            if model.source is not None
            and (settings := model.on_fleet) is not None
            and fleet_of(model.name, settings, self._config.triton).name == fleet
        }
        found = [source.remote_names() for source in self.sources if source.fleet == fleet]
        return published | {name: remote for names in found for name, remote in names.items()}

    async def __aenter__(self) -> Self:
        """Make the fleets and begin to look for their endpoints.

        Raises:
            ConfigError: the extra is missing, TLS files cannot be read, or settings contradict each other.
        """
        if not self._config.triton:
            return self
        try:
            await self._open()
        except BaseException:
            await self._resources.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        await self._resources.aclose()

    async def _open(self) -> None:
        try:
            from gateway.backends.triton.backend import TritonBackend  # noqa: PLC0415 - an extra
            from gateway.backends.triton.control import FleetControls  # noqa: PLC0415 - likewise
            from gateway.backends.triton.segments import sweep  # noqa: PLC0415 - likewise
        except ImportError as error:
            raise ConfigError(
                f"triton needs pip install 'model-gateway[triton]': {error.name} is missing"
            ) from error
        await asyncio.to_thread(sweep)
        folder = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="gateway-fleets-")
        self._resources.push_async_callback(asyncio.to_thread, folder.cleanup)
        for ordinal, settings in enumerate(self._config.triton):
            self._fleets[settings.name] = await self._fleet(settings, Device("fleet", ordinal))
        backend = TritonBackend(self._fleets, self._clock, FleetControls(await self._control()))
        self.backends = {backend.name: backend}
        self.sources = [self._source(settings, Path(folder.name)) for settings in self._config.triton]

    async def _fleet(self, settings: FleetSettings, device: Device) -> TritonFleet:
        from gateway.backends.remote.fleet import Fleet  # noqa: PLC0415 - nothing of it without a fleet
        from gateway.backends.triton.connection import Connector  # noqa: PLC0415 - an extra
        from gateway.backends.triton.model import TritonFleet  # noqa: PLC0415 - likewise
        from gateway.backends.triton.versions import Versions  # noqa: PLC0415 - likewise
        from gateway.transport.fleet_client import FleetDial  # noqa: PLC0415 - likewise

        options = wiring.remote_options(settings)
        versions = Versions()
        dial = FleetDial() if settings.grpc_client == "native" else None
        connect = await asyncio.to_thread(Connector, options, versions, dial)
        fleet = Fleet(options, connect, self._clock, self.metrics)
        await self._resources.enter_async_context(fleet)
        return TritonFleet(fleet, versions, device)

    async def _control(self) -> Mapping[str, FleetControl]:
        """Return what publishes to each fleet whose repository is named."""
        from gateway.backends.triton.control import FleetControl  # noqa: PLC0415 - an extra
        from gateway.backends.triton.publishing import SharedRepository  # noqa: PLC0415 - likewise

        for settings in self._config.triton:
            if settings.repository is not None:
                repository = SharedRepository(settings.repository)
                control = FleetControl(self._fleets[settings.name], repository, uuid.uuid4().hex)
                self._controls[settings.name] = await self._resources.enter_async_context(control)
        return self._controls

    def _source(self, settings: FleetSettings, files: Path) -> TritonSource:
        try:
            options = wiring.source_options(self._config, settings, files)
        except ModelLoadError as error:
            raise ConfigError(f"fleet '{settings.name}': {error}") from error
        listing = _Listing(self._fleets[settings.name])
        return TritonSource(f"triton {settings.name}", listing, options, self._clock)


class _Listing:
    """A VersionListing: what the endpoints of a fleet said last."""

    def __init__(self, parts: TritonFleet) -> None:
        self.fleet: str = parts.fleet.options.name
        self._fleet = parts.fleet
        self._versions = parts.versions

    def listing(self) -> Listing:
        """Return it."""
        versions = self._versions
        return Listing(
            endpoints=len(self._fleet.addresses()),
            answered=versions.asked(),
            models={model: versions.numbers(model) for model in versions.models()},
        )

    async def changes(self) -> AsyncGenerator[None, None]:
        """Give None at once, and whenever it has changed since."""
        async for _ in self._versions.changes():
            yield

    async def known(self) -> None:
        """Wait until every endpoint was asked once."""
        await self._fleet.wait_probed()


def remote_apart(plain: WarmUpRun, counting: WarmUpRun) -> WarmUpRun:
    """Return a warm-up that is `plain` for remote models: what runs elsewhere takes no memory here."""

    async def warm_up(model: LoadedModel, spec: ModelSpec) -> list[str]:
        return await (plain if model.remote else counting)(model, spec)

    return warm_up
