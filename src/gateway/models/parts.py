"""What the model manager is made with."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.models.budget import LoadBudget, Unlimited
from gateway.models.golden.run import find_golden
from gateway.models.retrying import REGISTRY_PAUSES_S, RETRY_PAUSES_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from gateway.core.clock import Clock
    from gateway.core.interfaces import Backend, BatcherFactory, LifecycleObserver, LoadedModel
    from gateway.core.options import ModelSpec


def _nobody() -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerParts:
    """What a ModelManager works with.

    Attributes:
        backends: by the name that `ModelSpec.backend` uses.
        batcher_factory: makes the batcher of one version on one device.
        clock: monotonic time, for load durations.
        warm_up: runs a loaded model before it is READY; returns warnings, raises ModelLoadError when the
            version must not serve.
        observers: told of every transition, after the routing table shows it.
        find_golden: returns the golden tests in a version's directory.
        load_concurrency: versions loading or warming at once; more of them finish later, not sooner, on a
            device that one load already keeps busy.
        fetch_concurrency: versions whose files are fetched or verified at once; loads do not wait for them.
        budget: asked for room before each load, with its place among the `load_concurrency` held.
        wall_s: wall-clock seconds since the epoch, for the index.
        on_change: called, after the observers, whenever readiness or the names known have changed: that may
            happen without a transition of any version.
        retry_pauses_s: seconds before each further attempt at a load that failed for a reason that may pass
            (no memory, a lost backend); none beyond the last. Empty where clients say when to load.
        registry_pauses_s: the same for a registry that is down or slow and the like, tried for ever, the last
            pause again and again.
        jitter: gives numbers in [0, 1) that spread the attempts of many gateways at a registry.
    """

    backends: Mapping[str, Backend]
    batcher_factory: BatcherFactory
    clock: Clock
    warm_up: Callable[[LoadedModel, ModelSpec], Awaitable[list[str]]]
    observers: Sequence[LifecycleObserver] = ()
    find_golden: Callable[[Path], Awaitable[Sequence[Path]]] = find_golden
    load_concurrency: int = 2
    fetch_concurrency: int = 4
    budget: LoadBudget = field(default_factory=Unlimited)
    wall_s: Callable[[], float] = time.time
    on_change: Callable[[], None] = _nobody
    retry_pauses_s: Sequence[float] = RETRY_PAUSES_S
    registry_pauses_s: Sequence[float] = REGISTRY_PAUSES_S
    jitter: Callable[[], float] = random.random
