"""Brings versions of registries to a fleet whose servers run in explicit mode, and takes them away again."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final, Self

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as pb

from gateway.backends.triton.failures import ModelFailed
from gateway.core.errors import GatewayError, ModelLoadError
from gateway.core.remote import AttemptError, FleetUnavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine, Iterable, Mapping
    from types import TracebackType

    from gateway.backends.triton.model import TritonFleet
    from gateway.backends.triton.options import TritonOptions
    from gateway.backends.triton.publishing import SharedRepository
    from gateway.core.options import LoadOptions, ModelSpec
    from gateway.core.remote import Address
    from gateway.core.types import Artifact

LOAD_S: Final = 300.0
"""Longest that an endpoint may take to load a model."""
INDEX_S: Final = 10.0
RENEW_S: Final = 30.0
"""Claims are renewed, and endpoints that failed to load are tried again, so often."""
_log = logging.getLogger(__name__)


class FleetControl:
    """The `ModelControl` of one fleet; an async context, event loop only.

    An endpoint is asked to load a model with `version_policy.specific` of what it has READY and what is
    wanted here, so that versions of others stay; one that has lost a version, or is new, is asked again.
    Several gateways may share a fleet: each leaves its claim in the repository, and a version is unloaded by
    the last that wanted it. Leaving unloads nothing: what serves goes on without this gateway.

    Limits: a version that was withdrawn while its gateway was not running, or wanted by one that died, stays
    loaded; two gateways that change one model at the same moment may have to ask twice.

    Args:
        fleet: whose endpoints are asked.
        repository: that they share.
        owner: tells this gateway from others.
    """

    def __init__(self, fleet: TritonFleet, repository: SharedRepository, owner: str) -> None:
        self._fleet = fleet
        self._repository = repository
        self._owner = owner
        self._wanted: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self._configs: dict[str, pb.ModelConfig] = {}
        self._turns: defaultdict[tuple[Address, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._task: asyncio.Task[None] | None = None
        self._leaving = False

    async def __aenter__(self) -> Self:
        """Begin to look after what endpoints have lost."""
        self._task = asyncio.create_task(self._keep(), name="control of a fleet")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop that."""
        self.leave()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def leave(self) -> None:
        """Unload nothing from here on: this gateway goes, and the fleet stays."""
        self._leaving = True

    async def bring(self, options: TritonOptions, artifact: Artifact, load: LoadOptions) -> int:
        """Publish a version and have the endpoints load it; as `ModelControl.bring`.

        Raises:
            ModelLoadError: it cannot be published, or no endpoint could load it.
        """
        model, number = options.model, load.number
        await asyncio.to_thread(self._publish, model, number, artifact, load.spec)
        self._wanted[model][number] += 1
        try:
            await self._arrange_everywhere(model, number)
        except BaseException:
            await self._give_up(model, number)
            raise
        return number

    async def withdraw(self, options: TritonOptions, version: int) -> None:
        """Have the endpoints unload a version unless another gateway wants it; never raises."""
        if self._leaving:
            return
        try:
            if await self._give_up(options.model, version):
                return
            steps = [
                self._arrange(a, options.model, without={version}) for a in self._fleet.fleet.addresses()
            ]
            for failure in await _failures(steps):
                _log.warning("version %d of %r stays loaded: %s", version, options.model, failure)
        except Exception:  # noqa: BLE001 - logged: unloading here goes on without the fleet
            _log.exception("withdrawing version %d of %r", version, options.model)

    def _publish(self, model: str, number: int, artifact: Artifact, spec: ModelSpec) -> None:
        """Put files and configuration into the repository; blocking."""
        repository = self._repository
        repository.publish(model, number, artifact.directory, artifact.digest)
        repository.configure(model, rendered(model, artifact, spec))
        self._configs[model] = parsed(repository.configuration(model))
        try:
            repository.claim(model, number, self._owner)
        except OSError as error:
            raise ModelLoadError(f"claiming version {number}: {error.strerror}") from error

    async def _give_up(self, model: str, number: int) -> bool:
        """Want a version once less; return whether it still is, by another load of it or another gateway."""
        wanted = self._wanted[model]
        wanted[number] -= 1
        if wanted[number] > 0:
            return True
        del wanted[number]
        await asyncio.to_thread(self._repository.release, model, number, self._owner)
        return await asyncio.to_thread(self._repository.is_claimed, model, number, beside=self._owner)

    async def _arrange_everywhere(self, model: str, number: int) -> None:
        """Have every endpoint load a model as it is wanted; one is enough here.

        Raises:
            ModelLoadError: none could.
        """
        addresses = self._fleet.fleet.addresses()
        failures = await _failures(self._arrange(address, model) for address in addresses)
        if not addresses or len(failures) == len(addresses):
            reason = (
                f"no endpoint could load version {number}: {failures[0] if failures else 'there is none'}"
            )
            passes = not failures or any(
                isinstance(f, AttemptError) and not isinstance(f, ModelFailed) for f in failures
            )
            raise ModelLoadError(reason) from (FleetUnavailable(reason) if passes else None)
        for failure in failures:
            _log.warning("an endpoint could not load version %d of %r: %s", number, model, failure)

    async def _arrange(self, address: Address, model: str, *, without: Collection[int] = ()) -> None:
        """Have one endpoint load what is wanted beside what it has, less what is withdrawn.

        Raises:
            GatewayError: it did not.
        """
        async with self._turns[address, model]:
            try:
                connection = self._fleet.fleet.connection(address)
            except KeyError:
                return
            index = await connection.index(INDEX_S, ready=True)
            there = {line.version for line in index if line.model == model and line.state in {"READY", ""}}
            chosen = (there - set(without)) | self._wanted[model].keys()
            if chosen == there:
                return
            if chosen:
                await connection.load(model, _asked(self._configs[model], chosen), LOAD_S)
            else:
                await connection.unload(model, LOAD_S)

    async def _keep(self) -> None:
        """Renew claims; have endpoints that lack a version load it, new ones and restarted ones."""
        changes = self._fleet.versions.changes()
        changed = asyncio.ensure_future(anext(changes))
        try:
            while True:
                await asyncio.wait({changed}, timeout=RENEW_S)
                if changed.done():
                    changed.result()
                    changed = asyncio.ensure_future(anext(changes))
                for model, numbers in list(self._wanted.items()):
                    await self._renew(model, numbers)
                    await asyncio.gather(
                        *(
                            self._bring_back(a, model)
                            for a in self._fleet.fleet.addresses()
                            if self._lacks(a, model)
                        )
                    )
        finally:
            changed.cancel()
            await asyncio.gather(changed, return_exceptions=True)

    def _lacks(self, address: Address, model: str) -> bool:
        has = {loaded.version for loaded in self._fleet.versions.of(address) if loaded.model == model}
        return not self._wanted[model].keys() <= has

    async def _renew(self, model: str, numbers: Collection[int]) -> None:
        try:
            for number in list(numbers):
                await asyncio.to_thread(self._repository.claim, model, number, self._owner)
        except OSError as error:
            _log.warning(
                "claims on %r in the fleet's repository cannot be renewed: %s", model, error.strerror
            )

    async def _bring_back(self, address: Address, model: str) -> None:
        try:
            await self._arrange(address, model)
        except GatewayError as error:
            _log.warning("%s does not load %r: %s", address, model, error)


class FleetControls:
    """A `ModelControl` over the fleets whose repository this gateway may write."""

    def __init__(self, controls: Mapping[str, FleetControl]) -> None:
        self._controls = controls

    async def bring(
        self, fleet: TritonFleet, options: TritonOptions, artifact: Artifact, load: LoadOptions
    ) -> int:
        """As `FleetControl.bring`."""
        control = self._controls.get(options.fleet)
        if control is None:
            raise ModelLoadError(f"fleet '{fleet.fleet.options.name}' has no repository to publish in")
        return await control.bring(options, artifact, load)

    async def withdraw(self, fleet: TritonFleet, options: TritonOptions, version: int) -> None:  # noqa: ARG002
        """As `FleetControl.withdraw`."""
        await self._controls[options.fleet].withdraw(options, version)


async def _failures(steps: Iterable[Coroutine[None, None, None]]) -> list[GatewayError]:
    """Take steps together; return what those that failed met."""
    results = await asyncio.gather(*steps, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, GatewayError):
            raise result
    return [result for result in results if isinstance(result, GatewayError)]


def rendered(model: str, artifact: Artifact, spec: ModelSpec) -> pb.ModelConfig:
    """Return the model's own configuration for Triton; of a model that brings none, an ONNX model's."""
    config = pb.ModelConfig.FromString(spec.declared_config)
    if not (config.backend or config.platform):
        config.platform = "onnxruntime_onnx"
    if not config.default_model_filename and artifact.model_file.name != "model.onnx":
        config.default_model_filename = artifact.model_file.relative_to(artifact.directory).as_posix()
    config.name = model
    config.ClearField("version_policy")
    return config


def parsed(text: str) -> pb.ModelConfig:
    """Parse a config.pbtxt of the repository.

    Raises:
        ModelLoadError: it is wrong, or newer than what is known here.
    """
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as error:
        raise ModelLoadError(f"config.pbtxt in the fleet's repository: {error}") from error


def _asked(config: pb.ModelConfig, numbers: Iterable[int]) -> str:
    """Return the configuration that a load asks for, as JSON."""
    asked = pb.ModelConfig()
    asked.CopyFrom(config)
    asked.version_policy.specific.versions[:] = sorted(numbers)
    return json_format.MessageToJson(asked, preserving_proto_field_name=True, indent=0)
