"""What the manager knows of every version: its record, and the index made of the records."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from gateway.core.types import VersionId, VersionState, VersionStatus
from gateway.models.lifecycle import ENDED, check_transition

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from gateway.core.interfaces import WantedVersion
    from gateway.models.served import LoadedVersion

KEPT_UNLOADED: Final = 8
"""Unloaded versions of one model kept for the index, so that endless new versions don't grow it."""

MISSING: Final = "the configuration requires it, and no repository offers a version of it"
"""Why a model without any version keeps the server from being ready."""

# Which record stands for a number that has several: what serves, else what is coming, else what went wrong.
_PRECEDENCE: Final = (
    VersionState.READY,
    VersionState.WARMING,
    VersionState.LOADING,
    VersionState.NEW,
    VersionState.FAILED,
    VersionState.DRAINING,
    VersionState.UNLOADED,
)


class VersionRecord:
    """One attempt to serve one version, from NEW to its end.

    Attributes:
        wanted: what to load.
        state: where it is; changed by `enter` alone.
        reason: why it is not READY.
        since_s: wall-clock seconds since the epoch of the last change.
        withdrawn: nobody claims it any more; a load under way ends in UNLOADED.
        served: the loaded version while READY or DRAINING.
        cause: what outside its files a FAILED one was met by; see `outer_cause`.
    """

    __slots__ = ("cause", "reason", "served", "since_s", "state", "wanted", "withdrawn")

    def __init__(self, wanted: WantedVersion, now_s: float) -> None:
        self.wanted = wanted
        self.state = VersionState.NEW
        self.reason = "waiting for its turn to load"
        self.since_s = now_s
        self.withdrawn = False
        self.served: LoadedVersion | None = None
        self.cause: Exception | None = None

    @property
    def id(self) -> VersionId:
        """The version's identity."""
        return self.wanted.id

    def enter(self, state: VersionState, reason: str, now_s: float) -> None:
        """Change the state.

        Raises:
            IllegalTransition: no arrow leads there.
        """
        self.state = check_transition(self.state, state)
        self.reason = reason
        self.since_s = now_s

    def status(self) -> VersionStatus:
        """Return the record as a row of the index."""
        loaded = self.served if self.state not in ENDED else None
        return VersionStatus(
            id=self.id,
            state=self.state,
            reason=self.reason,
            memory_bytes=loaded.memory_bytes if loaded else 0,
            inflight=loaded.leases if loaded else 0,
            since_s=self.since_s,
        )


class Records:
    """Every record, by model. Several may exist for one number: a reload goes on beside what serves."""

    def __init__(self) -> None:
        self._of_model: dict[str, list[VersionRecord]] = defaultdict(list)

    def __iter__(self) -> Iterator[VersionRecord]:
        """Iterate over a copy of all records, so that they may be dropped meanwhile."""
        return iter([record for group in self._of_model.values() for record in group])

    def add(self, record: VersionRecord) -> None:
        """Add a record."""
        self._of_model[record.id.model].append(record)

    def drop(self, record: VersionRecord) -> None:
        """Forget a record."""
        group = self._of_model[record.id.model]
        group.remove(record)
        if not group:
            del self._of_model[record.id.model]

    def of(self, model: str) -> Sequence[VersionRecord]:
        """Return the records of one model."""
        return tuple(self._of_model.get(model, ()))

    def live(self, version: VersionId) -> VersionRecord | None:
        """Return the record that answers for a claim on `version`: on its way, READY, or FAILED."""
        gone = (VersionState.DRAINING, VersionState.UNLOADED)
        return next((r for r in self.of(version.model) if r.id == version and r.state not in gone), None)

    def prune(self, model: str) -> None:
        """Forget UNLOADED records that another record stands for, and all but the latest few others."""
        group = self.of(model)
        unloaded = [r for r in group if r.state is VersionState.UNLOADED]
        others = {r.id.number for r in group if r.state is not VersionState.UNLOADED}
        newest = {r.id.number: r for r in unloaded if r.id.number not in others}
        kept = list(newest.values())[-KEPT_UNLOADED:]
        for record in unloaded:
            if record not in kept:
                self.drop(record)

    def models(self) -> frozenset[str]:
        """Return the names with a version on record."""
        return frozenset(self._of_model)

    def index(self, known: Collection[str], required: Collection[str] = ()) -> Sequence[VersionStatus]:
        """Return one row per version by name and number, and one with number 0 for each bare model.

        Args:
            known: models that exist.
            required: models that must exist; one without any version is shown as failed, with the reason.
        """
        rows = [self._row(group) for model in self._of_model for group in self._by_number(model)]
        bare = {*known, *required}.difference(self._of_model)
        rows += [_bare(model, missing=model in required) for model in bare]
        return tuple(sorted(rows, key=lambda row: row.id))

    def _by_number(self, model: str) -> Iterable[list[VersionRecord]]:
        groups: dict[int, list[VersionRecord]] = defaultdict(list)
        for record in self.of(model):
            groups[record.id.number].append(record)
        return groups.values()

    def _row(self, group: list[VersionRecord]) -> VersionStatus:
        best = min(group, key=lambda r: _PRECEDENCE.index(r.state))
        row = best.status()
        failed = next((r for r in group if r.state is VersionState.FAILED), None)
        if best.state is VersionState.READY and failed is not None:
            return dataclasses.replace(
                row, reason=f"serving the version before; reload failed: {failed.reason}"
            )
        return row


def _bare(model: str, *, missing: bool) -> VersionStatus:
    state, reason = (VersionState.FAILED, MISSING) if missing else (VersionState.UNLOADED, "")
    return VersionStatus(id=VersionId(model, 0, ""), state=state, reason=reason)
