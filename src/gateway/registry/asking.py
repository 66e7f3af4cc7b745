"""One look at one model of a registry: asks, describes, and tells what it came to, whatever goes wrong."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gateway.core.options import ModelSpec
from gateway.core.registry import NotInRegistry, RegistryError
from gateway.registry.following import PollOutcome
from gateway.registry.model_specs import (
    ModelDescription,
    ModelFile,
    ModelFileReader,
    Undescribed,
    describe,
    text_of,
)
from gateway.registry.polling import within

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.core.clock import Clock
    from gateway.core.registry import ModelRegistry, RegisteredModel
    from gateway.registry.following import Following, SourcedModel
    from gateway.registry.model_specs import ReadText

_log = logging.getLogger(__name__)


class ModelInquiry:
    """Asks a registry about one model. One question at a time.

    Args:
        model: the model.
        registry: who is asked.
        clock: bounds each question.
        wall_s: now, seconds since the epoch.

    Attributes:
        registered: the registry's last answer; None before the first.
    """

    def __init__(
        self, model: SourcedModel, registry: ModelRegistry, clock: Clock, wall_s: Callable[[], float]
    ) -> None:
        self.registered: RegisteredModel | None = None
        self._model = model
        self._registry = registry
        self._clock = clock
        self._wall_s = wall_s
        self._described_from: dict[str, ModelFile | None] = {}
        self._description: ModelDescription | None = None

    async def look(self, following: Following, timeout_s: float) -> PollOutcome:
        """Ask, and have `following` take note. Raises nothing but CancelledError."""
        try:
            registered, description = await within(self._clock, timeout_s, self._answer())
            outcome = following.answered(registered, description, self._wall_s())
            self.registered = registered
        except NotInRegistry as error:
            return following.absent(_without_step(error), self._wall_s())
        except Undescribed as error:
            following.failed(str(error), self._wall_s(), is_down=False)
        except RegistryError as error:
            following.failed(str(error), self._wall_s())
        except TimeoutError:
            why = f"resolve: registry '{self._registry.name}' did not answer within {timeout_s:g} s"
            following.failed(why, self._wall_s())
            return PollOutcome.TIMEOUT
        except Exception as error:  # noqa: BLE001 - client libraries raise anything; the model is asked for again
            _log.exception("asking registry %r for %r failed", self._registry.name, self._model.name)
            why = f"resolve: asking registry '{self._registry.name}' failed: {type(error).__name__}"
            following.failed(why, self._wall_s())
        else:
            return outcome
        return PollOutcome.ERROR

    async def describe(self, config: str = "") -> ModelDescription:
        """Return how to serve the model, by the files beside its versions or by JSON `config` in their place.

        Raises:
            RegistryError: step `resolve`.
        """
        if not config and self._description is not None and not await self._has_changed():
            return self._description
        seen: dict[str, ModelFile | None] = {}

        async def read(path: str) -> str | None:
            file = seen[path] = await self._file(path)
            return None if file is None else text_of(file, path)

        description = await self._described(read, config)
        if not config:
            self._description, self._described_from = description, seen
        return description

    async def _has_changed(self) -> bool:
        """Whether some file that the description was made from, or that was not there, is another now."""
        for path, known in self._described_from.items():
            if await self._file(path) != known:
                return True
        return False

    async def _file(self, path: str) -> ModelFile | None:
        if not isinstance(self._registry, ModelFileReader):
            return None
        name = self._model.reference.model
        return await self._registry.model_file(name, path, self._described_from.get(path))

    async def describe_from(self, texts: Mapping[str, str]) -> ModelDescription | None:
        """Return how to serve the model by texts of an earlier run, None when they no longer make sense."""

        async def read(path: str) -> str | None:
            await asyncio.sleep(0)
            return texts.get(path)

        try:
            return await self._described(read, "")
        except RegistryError as error:
            _log.warning("what is kept of model %r cannot be used: %s", self._model.name, error)
            return None

    async def _described(self, read: ReadText, config: str) -> ModelDescription:
        model = self._model
        base = ModelSpec(name=model.name, lazy=model.lazy, allow_breaking=model.allow_breaking)
        return await describe(base, read, adjust=model.adjust, label_files=model.label_files, config=config)

    async def _answer(self) -> tuple[RegisteredModel, ModelDescription]:
        registered = await self._registry.model(self._model.reference.model)
        return registered, await self.describe()


def _without_step(error: RegistryError) -> str:
    return str(error).removeprefix(f"{error.step}: ")
