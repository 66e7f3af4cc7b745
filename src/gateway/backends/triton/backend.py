"""Make model versions that fleets of Triton servers have ready available here."""

from __future__ import annotations

import asyncio
import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from gateway.backends.triton.labels import learned
from gateway.backends.triton.model import Served, TritonModel
from gateway.backends.triton.options import parse_options
from gateway.backends.triton.signature import differences, read_facts
from gateway.backends.triton.versions import Loaded
from gateway.core.errors import BackendUnavailable, GatewayError, ModelLoadError
from gateway.core.remote import FleetUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from gateway.backends.triton.connection import TritonConnection
    from gateway.backends.triton.model import TritonFleet
    from gateway.backends.triton.options import TritonOptions
    from gateway.backends.triton.signature import ModelFacts
    from gateway.core.clock import Clock
    from gateway.core.options import LoadOptions
    from gateway.core.remote import Address
    from gateway.core.types import Artifact

_DESCRIBE_S: Final = 5.0


class ModelControl(Protocol):
    """Brings versions to a fleet and takes them away, for models with `control`."""

    async def bring(
        self, fleet: TritonFleet, options: TritonOptions, artifact: Artifact, load: LoadOptions
    ) -> int:
        """Publish a version and have the endpoints load it; return its number on Triton.

        It is waited for elsewhere until enough of them have it ready.

        Args:
            fleet: where to.
            options: of the backend.
            artifact: its files.
            load: its number, and the config.pbtxt that its model brings, if any.

        Raises:
            ModelLoadError: with the failing step and the reason.
        """

    async def withdraw(self, fleet: TritonFleet, options: TritonOptions, version: int) -> None:
        """Have the endpoints unload a version that nobody here wants any more; never raises."""


class TritonBackend:
    """A `Backend` for models on fleets of Triton servers.

    Args:
        fleets: by name; they outlive the models.
        clock: time.
        control: for models with the option `control`; None: there are none.
    """

    name = "triton"
    platform = "triton"

    def __init__(
        self, fleets: Mapping[str, TritonFleet], clock: Clock, control: ModelControl | None = None
    ) -> None:
        self._fleets = fleets
        self._clock = clock
        self._control = control

    async def load(self, artifact: Artifact, options: LoadOptions) -> TritonModel:
        """Wait until enough endpoints have a version ready, and ask them what it is.

        Args:
            artifact: published first where the model's versions are controlled from here; else not looked at.
            options: the version is that of `spec.backend_options`, else `number`, else the newest; the
                instances are Triton's.

        Raises:
            ModelLoadError: wrong options, too few endpoints have it in time, or they disagree about it. Its
                cause is BackendUnavailable where the fleet is why.
        """
        name = options.spec.name
        try:
            parsed = parse_options(options.spec.backend_options, name=name)
            fleet = self._fleet(parsed.fleet)
            if parsed.control:
                return await self._brought(fleet, parsed, artifact, options)
            return await self._model(name, fleet, parsed, parsed.version or options.number or None)
        except ModelLoadError as error:
            raise ModelLoadError(f"model '{name}': {error}") from (error.__cause__ or error)

    def _fleet(self, name: str) -> TritonFleet:
        if fleet := self._fleets.get(name):
            return fleet
        raise ModelLoadError(f"no fleet '{name}', there are: {', '.join(sorted(self._fleets)) or 'none'}")

    async def _brought(
        self, fleet: TritonFleet, options: TritonOptions, artifact: Artifact, load: LoadOptions
    ) -> TritonModel:
        """Bring a version to its fleet; what came of it is taken away again if it cannot be served."""
        if self._control is None:
            raise ModelLoadError("its versions cannot be controlled: nothing here publishes to its fleet")
        version = await self._control.bring(fleet, options, artifact, load)
        withdraw = partial(self._control.withdraw, fleet, options, version)
        try:
            return await self._model(load.spec.name, fleet, options, version, withdraw)
        except BaseException:
            await withdraw()
            raise

    async def _model(
        self,
        name: str,
        fleet: TritonFleet,
        options: TritonOptions,
        version: int | None,
        closed: Callable[[], Awaitable[object]] | None = None,
    ) -> TritonModel:
        if version is None:
            version = await _newest(fleet, options)
        loaded = Loaded(options.model, version)
        fleet.versions.watch(loaded)
        try:
            await _until_ready(fleet, options, loaded)
            facts = await _described(fleet, loaded)
            facts = dataclasses.replace(facts, labels=await _labels(fleet, loaded, facts))
            model = TritonModel(fleet, Served(name, loaded, facts, options), self._clock, closed)
        except BaseException:
            fleet.versions.unwatch(loaded)
            raise
        return model


async def _newest(fleet: TritonFleet, options: TritonOptions) -> int:
    """Return the highest version that enough endpoints have ready."""
    numbers: dict[int, int] = {}
    try:
        async with asyncio.timeout(options.ready_timeout_s):
            await fleet.fleet.wait_probed()
            async for _ in fleet.versions.changes():
                numbers = fleet.versions.numbers(options.model)
                enough = options.enough(len(fleet.fleet.addresses()))
                ready = [number for number, endpoints in numbers.items() if endpoints >= enough]
                if ready:
                    return max(ready)
    except TimeoutError:
        pass
    there = ", ".join(f"{number} on {count}" for number, count in numbers.items()) or "none on any"
    raise _not_ready(fleet, options, f"no version of '{options.model}' is ready on enough; ready are {there}")


async def _until_ready(fleet: TritonFleet, options: TritonOptions, loaded: Loaded) -> None:
    try:
        async with asyncio.timeout(options.ready_timeout_s):
            async for _ in fleet.versions.changes():
                if len(fleet.versions.having(loaded)) >= options.enough(len(fleet.fleet.addresses())):
                    return
    except TimeoutError:
        pass
    has = len(fleet.versions.having(loaded))
    raise _not_ready(
        fleet, options, f"version {loaded.version} of '{loaded.model}' is ready on {has} of them"
    )


def _not_ready(fleet: TritonFleet, options: TritonOptions, what: str) -> ModelLoadError:
    endpoints = len(fleet.fleet.addresses())
    error = ModelLoadError(
        f"fleet '{options.fleet}' has {endpoints} endpoints, of which {options.enough(endpoints)} must be "
        f"ready: {what} after {options.ready_timeout_s:g} s"
    )
    error.__cause__ = FleetUnavailable(str(error))
    return error


async def _described(fleet: TritonFleet, loaded: Loaded) -> ModelFacts:
    """Ask every endpoint that has a version what it is; they must agree."""
    addresses = sorted(fleet.versions.having(loaded))
    answers = await asyncio.gather(*(_asked(fleet, address, loaded) for address in addresses))
    facts = [answer for answer in answers if not isinstance(answer, GatewayError)]
    failures = [answer for answer in answers if isinstance(answer, GatewayError)]
    for failure in failures:
        if isinstance(failure, ModelLoadError):
            raise failure
    if not facts:
        reason = f"version {loaded.version} of '{loaded.model}' could not be asked about: {failures[:1]}"
        raise ModelLoadError(reason) from FleetUnavailable(reason)
    for other in facts[1:]:
        if what := differences(facts[0].signature, other.signature):
            raise ModelLoadError(
                f"endpoints have different models as version {loaded.version} of '{loaded.model}': {what}"
            )
    return facts[0]


async def _labels(fleet: TritonFleet, loaded: Loaded, facts: ModelFacts) -> Mapping[str, tuple[str, ...]]:
    """Ask one endpoint that has the version for its class labels."""
    if not facts.labelled:
        return {}
    try:
        connection: TritonConnection = fleet.fleet.connection(min(fleet.versions.having(loaded)))
    except (KeyError, ValueError):
        return {}
    return await learned(connection, loaded, facts)


async def _asked(fleet: TritonFleet, address: Address, loaded: Loaded) -> ModelFacts | GatewayError:
    try:
        connection: TritonConnection = fleet.fleet.connection(address)
        metadata = await connection.metadata(loaded, _DESCRIBE_S)
        return read_facts(metadata, await connection.config(loaded, _DESCRIBE_S))
    except KeyError:
        return BackendUnavailable("the endpoint has gone")
    except GatewayError as error:
        return error
