"""Run a loaded model at every batch size it will see, before its first request pays for it."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from gateway.backends.generation import Sizes, bucket_choices
from gateway.backends.warm_up_inputs import WarmUpData
from gateway.core.clock import Clock, LoopClock
from gateway.core.errors import GatewayError, ModelLoadError
from gateway.core.types import Artifact, Batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.interfaces import LoadedModel
    from gateway.core.options import ModelSpec


class _Loading(Protocol):
    artifact: Artifact


@runtime_checkable
class _FromFiles(Protocol):
    """A model that knows which files it was loaded from."""

    loaded: _Loading


async def warm_up(
    model: LoadedModel, spec: ModelSpec, *, budget_s: float = 30.0, clock: Clock | None = None
) -> list[str]:
    """Run every declared batch size, else powers of two up to the most rows.

    A model that is not batched runs once per bucket. Sizes nobody declared are left out when their inputs
    would pass the batch's byte budget or the time is up. Cancelling stops before the next run.

    Args:
        model: loaded, idle.
        spec: its settings; files are looked for in `warmup`, in the version's directory or beside it.
        budget_s: seconds after which no further run of a size that nobody declared is begun.
        clock: what seconds are measured by; the real one when None.

    Returns:
        Sentences for the operator: a warm-up that failed on generated inputs, or was cut short.

    Raises:
        ModelLoadError: a warm-up that is required, or has declared data, failed.
    """
    if not spec.warm_up.enabled or model.signature.decoupled:
        return []
    try:
        return await _run_all(model, spec, _Deadline(clock or LoopClock(), budget_s))
    except (GatewayError, ValueError, OSError) as error:
        reason = _reason(error)
        if spec.warm_up.required or spec.warm_up.data:
            raise ModelLoadError(f"model '{spec.name}': warm-up failed: {reason}") from error
        return [f"warm-up with generated inputs failed, the first requests pay for it: {reason}"]


class _Deadline:
    """When the time for warm-up is up."""

    def __init__(self, clock: Clock, budget_s: float) -> None:
        self.budget_s = budget_s
        self._clock = clock
        self._until_s = clock.now_s() + budget_s

    def passed(self) -> bool:
        """Whether it is up."""
        return self._clock.now_s() > self._until_s


async def _run_all(model: LoadedModel, spec: ModelSpec, deadline: _Deadline) -> list[str]:
    data = WarmUpData(model.signature, spec.warm_up.data, _folder(model))
    declared = bool(spec.warm_up.rows or spec.batching.allowed_rows)
    for sizes, rows in itertools.product(_sizes(spec), row_counts(model, spec)):
        if not declared and deadline.passed():
            return [f"warm-up stopped after {deadline.budget_s:g} s, before a batch of {rows}"]
        inputs = await asyncio.to_thread(data.inputs, sizes, rows)
        size = sum(array.nbytes for array in inputs.values())
        if not declared and rows > 1 and size > spec.batching.max_batch_bytes:
            continue
        outputs = tuple(t.name for t in model.signature.outputs)
        for _ in range(max(1, spec.warm_up.repeat)):
            await model.infer(Batch(inputs, rows, outputs))
    return []


def row_counts(model: LoadedModel, spec: ModelSpec) -> list[int]:
    """Return the batch sizes to warm, ascending: declared, or allowed, or powers of two to the most rows."""
    if not model.signature.batchable:
        return [1]
    if spec.warm_up.rows:
        return sorted(set(spec.warm_up.rows))
    if spec.batching.allowed_rows:
        return sorted(set(spec.batching.allowed_rows))
    most = spec.batching.max_batch_rows if spec.batching.enabled else 1
    powers = (1 << exponent for exponent in range(most.bit_length()))
    return sorted({*powers, most})


def _sizes(spec: ModelSpec) -> Iterator[Sizes]:
    for buckets in bucket_choices(spec):
        yield Sizes(spec.warm_up.shapes, buckets)


def _folder(model: LoadedModel) -> Path | None:
    """Return the `warmup` folder: of the version, or beside the versions as Triton has it."""
    if not isinstance(model, _FromFiles):
        return None
    directory = model.loaded.artifact.directory
    candidates = (directory / "warmup", directory.parent / "warmup")
    return next((folder for folder in candidates if folder.is_dir()), None)


def _reason(error: BaseException) -> str:
    """Name a file that cannot be read by its name alone."""
    if isinstance(error, OSError):
        return f"'{Path(str(error.filename)).name}': {error.strerror}"
    return str(error)
