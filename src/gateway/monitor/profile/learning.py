"""Learns profiles from live traffic for versions that came without one, and looks after replaced files."""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from gateway.monitor.profile.build import BuildOptions, from_batches
from gateway.monitor.profile.tables import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.config.monitor_detect import ProfileSettings
    from gateway.monitor.profile.catalog import ProfileCatalog
    from gateway.monitor.profile.reference import Profile
    from gateway.monitor.values import StreamKey
    from gateway.predlog.rows import RowBatch

_log = logging.getLogger(__name__)

MAX_FAILED: Final = 1_000
LEAST_CATEGORY: Final = 20
"""A category of fewer live rows could be somebody: a profile outlives them, and is not erased from."""


class SampleSource(Protocol):
    """Keeps rows of versions without a profile."""

    def keys(self) -> Iterable[StreamKey]:
        """Return every stream that has rows."""

    def learned(self, model: str, version: int, digest: str) -> RowBatch | None:
        """Return a random sample of a version's rows; None where there is none or it has a profile."""


class Learning:
    """Makes a profile once a version's sample has `learn_rows` rows over `learn_time`.

    What is normal is then whatever that traffic was: a page should say so (`Profile.source`). The work of a
    profile, about a second for 10,000 rows of 100 signals, is done on the calling thread.
    """

    def __init__(self, samples: SampleSource, catalog: ProfileCatalog, settings: ProfileSettings) -> None:
        self._samples, self._catalog, self._settings = samples, catalog, settings
        self._failed: set[tuple[str, int, str]] = set()

    def evaluate(self, now_s: float) -> list[Profile]:
        """Take replaced files, and learn what can be learned; at most one profile a call. Once a minute."""
        self._catalog.refresh()
        if not self._settings.learn_rows:
            return []
        for place in dict.fromkeys((key.model, key.version, key.digest) for key in self._samples.keys()):  # noqa: SIM118
            if place in self._failed or self._catalog.find(*place) is not None:
                continue
            sample = self._samples.learned(*place)
            if sample is not None and self._enough(sample):
                profile = self._learn(place, sample, now_s)
                return [] if profile is None else [profile]
        return []

    def _enough(self, sample: RowBatch) -> bool:
        if sample.rows < self._settings.learn_rows:
            return False
        return int(np.ptp(sample.done_ns)) >= self._settings.learn_time * 1e9

    def _learn(self, place: tuple[str, int, str], sample: RowBatch, now_s: float) -> Profile | None:
        model, version, _ = place
        options = BuildOptions(
            model=model,
            version=version,
            created_s=now_s,
            source=f"learned from {sample.rows} live rows",
            least_category=LEAST_CATEGORY,
        )
        try:
            profile = from_batches([in_time_order(sample)], options)
        except DataError as error:
            _log.warning("no profile can be learned for %s version %s: %s", model, version, error)
            if len(self._failed) < MAX_FAILED:
                self._failed.add(place)
            return None
        self._catalog.put(profile)
        return profile


def in_time_order(batch: RowBatch) -> RowBatch:
    """Return the rows by the time they were done."""
    order = np.argsort(batch.done_ns, kind="stable")
    arrays = {
        f.name: getattr(batch, f.name)[order]
        for f in fields(batch)
        if isinstance(getattr(batch, f.name), np.ndarray)
    }
    columns = tuple(replace(c, values=np.ascontiguousarray(c.values[order])) for c in batch.columns)
    keys = tuple(batch.keys[i] for i in order.tolist())
    return replace(batch, keys=keys, columns=columns, **arrays)
