"""Loads one version on every device it is declared for, warms it, joins it with batchers."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from gateway.core.errors import ModelLoadError
from gateway.core.interfaces import SettledModel
from gateway.core.options import InstanceGroup, LoadOptions
from gateway.core.statistics import VersionStatistics
from gateway.models.conform import NarrowedModel, completed, conformed
from gateway.models.counting import CountedModel
from gateway.models.desired import DesiredVersion
from gateway.models.padding import check_padding
from gateway.models.served import LoadedVersion, Replica, VersionParts
from gateway.models.validation import RequestValidator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import TypeAlias

    from gateway.core.clock import Clock
    from gateway.core.interfaces import Backend, BatcherFactory, LoadedModel, WantedVersion
    from gateway.core.options import ModelSpec
    from gateway.core.types import Artifact

    WarmUpRun: TypeAlias = Callable[[LoadedModel, ModelSpec], Awaitable[list[str]]]

_log = logging.getLogger(__name__)


class VersionLoader:
    """Makes LoadedVersions; keeps no state between them.

    Args:
        backends: by the name that `ModelSpec.backend` uses.
        batcher_factory: makes the batcher of one version on one device.
        warm_up: runs a model before it is READY; returns warnings, raises ModelLoadError to stop it.
        clock: times the responses of decoupled models.
    """

    def __init__(
        self,
        backends: Mapping[str, Backend],
        batcher_factory: BatcherFactory,
        warm_up: WarmUpRun,
        clock: Clock,
    ) -> None:
        self._backends = backends
        self._batcher_factory = batcher_factory
        self._warm_up = warm_up
        self._clock = clock

    async def load(self, wanted: WantedVersion, artifact: Artifact) -> Sequence[LoadedModel]:
        """Load the version's files once for each of its instance groups.

        When one fails, or on cancellation, those loaded before are closed.

        Raises:
            ModelLoadError: with the step that failed and why.
        """
        spec = wanted.spec
        backend = self._backend(spec)
        models: list[LoadedModel] = []
        async with AsyncExitStack() as undo:
            for group in spec.instances or (InstanceGroup(),):
                options = LoadOptions(
                    spec=spec, device=group.device, instances=group.count, number=wanted.id.number
                )
                model = await backend.load(artifact, options)
                undo.push_async_callback(model.aclose)
                models.append(conformed(model, spec))
            if any(m.signature != models[0].signature for m in models):
                raise ModelLoadError(f"model '{spec.name}' has another signature on each device")
            undo.pop_all()
        return models

    async def warm_up(self, wanted: WantedVersion, models: Sequence[LoadedModel]) -> None:
        """Warm every model up; warnings are logged. The models stay the caller's.

        Raises:
            ModelLoadError: a warm-up that is required failed.
            GatewayError: the settings do not fit the signature.
        """
        spec, _ = self._settled(wanted.spec, models[0])
        check_padding(models[0].signature, spec.batching)
        if spec.warm_up.enabled:
            for model in models:
                for warning in await self._warm_up(model, spec):
                    _log.warning("warm-up of %s on %s: %s", _title(wanted), model.device, warning)

    def join(self, wanted: WantedVersion, models: Sequence[LoadedModel]) -> LoadedVersion:
        """Join every model with a batcher; closing what is returned closes the models.

        Raises:
            GatewayError: the settings fit no batcher; the models stay the caller's.
        """
        signature = models[0].signature
        spec, platform = self._settled(wanted.spec, models[0])
        spec = completed(spec, signature)
        statistics = VersionStatistics()
        if signature.decoupled:
            models = [CountedModel(model, statistics, self._clock) for model in models]
        replicas = [Replica(m, self._batcher_factory(wanted.id, m, spec, statistics)) for m in models]
        return LoadedVersion(
            VersionParts(
                id=wanted.id,
                spec=spec,
                signature=signature,
                platform=platform,
                statistics=statistics,
                replicas=replicas,
                validator=RequestValidator(
                    spec.name, signature, spec.batching, implicit_batch=bool(spec.max_batch_size)
                ),
                label=_label(wanted),
            )
        )

    def _settled(self, spec: ModelSpec, model: LoadedModel) -> tuple[ModelSpec, str]:
        """Return how a model is to be served, and on what platform, where its server has a say in that."""
        inner = model.model if isinstance(model, NarrowedModel) else model
        if isinstance(inner, SettledModel):
            return inner.settled(spec), inner.platform
        return spec, self._backend(spec).platform

    def _backend(self, spec: ModelSpec) -> Backend:
        if backend := self._backends.get(spec.backend):
            return backend
        raise ModelLoadError(
            f"unable to find backend '{spec.backend}' for model '{spec.name}', "
            f"available: {', '.join(sorted(self._backends))}"
        )


def _title(wanted: WantedVersion) -> str:
    return f"'{wanted.id.model}' version {wanted.id.number}"


def _label(wanted: WantedVersion) -> str:
    origin = wanted.origin if isinstance(wanted, DesiredVersion) else None
    return origin.label if origin else ""
