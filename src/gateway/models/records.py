"""What the manager knows of every version: its record, and the index made of the records."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from gateway.core.types import VersionId, VersionState, VersionStatus
from gateway.models.desired import DesiredVersion
from gateway.models.lifecycle import ENDED, check_transition

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from contextlib import AsyncExitStack

    from gateway.core.interfaces import WantedVersion
    from gateway.core.registry import ArtifactProvider, FetchProgress
    from gateway.core.types import Artifact, VersionOrigin
    from gateway.models.served import LoadedVersion
    from gateway.models.steps import StepLog

KEPT_UNLOADED: Final = 8
"""Unloaded versions of one model kept for the index, so that endless new versions don't grow it."""

MISSING: Final = "the configuration requires it, and no repository offers a version of it"
"""Why a model without any version keeps the server from being ready."""

# Which record stands for a number that has several: what serves, else what is coming, else what went wrong.
_PRECEDENCE: Final = (
    VersionState.READY,
    VersionState.TESTING,
    VersionState.WARMING,
    VersionState.CHECKING,
    VersionState.LOADING,
    VersionState.VERIFYING,
    VersionState.FETCHING,
    VersionState.NEW,
    VersionState.FAILED,
    VersionState.DRAINING,
    VersionState.UNLOADED,
)


class VersionRecord:
    """One attempt to serve one version, from NEW to its end.

    Args:
        wanted: what to load.
        log: keeps the times of its states.
        order: when it was first wanted, on the manager's count of such events.

    Attributes:
        wanted: what to load.
        state: where it is; changed by `enter` alone.
        reason: why it is not READY.
        since_s: wall-clock seconds since the epoch of the last change.
        order: as given.
        ready_order: when it became READY, on the same count.
        withdrawn: nobody claims it any more; a load under way ends in UNLOADED.
        claims: who wants it.
        content_digest: of its files; empty until they are here.
        waiting: what it waits for and need not when it is withdrawn: its turn, its files, memory.
        served: the loaded version while READY or DRAINING.
        held: closes that version, then gives up its memory and its files.
        cause: what outside its files a FAILED one was met by; see `outer_cause`.
    """

    __slots__ = (
        "_fetched",
        "_log",
        "cause",
        "claims",
        "content_digest",
        "held",
        "order",
        "ready_order",
        "reason",
        "served",
        "since_s",
        "state",
        "waiting",
        "wanted",
        "withdrawn",
    )

    def __init__(self, wanted: WantedVersion, log: StepLog, order: int = 0) -> None:
        self.wanted = wanted
        self.state = VersionState.NEW
        self.reason = "waiting for its turn to load"
        self.since_s = log.enter(VersionState.NEW)
        self.order = order
        self.ready_order = 0
        self.withdrawn = False
        self.claims: tuple[str, ...] = ()
        self.content_digest = "" if self.provider else wanted.artifact.digest
        self.waiting: asyncio.Future[Any] | None = None
        self.served: LoadedVersion | None = None
        self.held: AsyncExitStack | None = None
        self.cause: Exception | None = None
        self._fetched: FetchProgress | None = None
        self._log = log

    @property
    def id(self) -> VersionId:
        """The version's identity."""
        return self.wanted.id

    @property
    def provider(self) -> ArtifactProvider | None:
        """Gets its files; None when they are on the local disk."""
        return self.wanted.provider if isinstance(self.wanted, DesiredVersion) else None

    @property
    def origin(self) -> VersionOrigin | None:
        """Where it comes from; None for a local repository."""
        return self.wanted.origin if isinstance(self.wanted, DesiredVersion) else None

    @property
    def problem(self) -> str:
        """Why it cannot be loaded although it is wanted."""
        return self.wanted.problem if isinstance(self.wanted, DesiredVersion) else ""

    @property
    def of_registry(self) -> bool:
        """Whether a registry offers it, and not a local repository."""
        return self.provider is not None or self.origin is not None

    def enter(self, state: VersionState, reason: str) -> None:
        """Change the state.

        Raises:
            IllegalTransition: no arrow leads there.
        """
        self.state = check_transition(self.state, state)
        self.reason = reason
        self.since_s = self._log.enter(state)

    def adopt(self, wanted: WantedVersion) -> None:
        """Take over the same version as it is wanted now; its files stay those that it is loaded from."""
        if isinstance(wanted, DesiredVersion) and isinstance(self.wanted, DesiredVersion):
            first = self.wanted
            wanted = dataclasses.replace(wanted, artifact=first.artifact, provider=first.provider)
        self.wanted = wanted

    def fetched(self, progress: FetchProgress) -> None:
        """Take note of how far its files are."""
        self._fetched = progress

    def obtained(self, artifact: Artifact) -> None:
        """Take note that its files are here; what it waits for from here on is its turn to load."""
        self.content_digest = artifact.digest
        self.reason = "waiting for its turn to load"
        self._log.end()

    def call_off(self) -> None:
        """Stop what it waits for; harmless when that is nothing, or was stopped before."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.cancel()

    def load_seconds(self) -> float:
        """Return how long its steps from LOADING on have taken."""
        fetching = (VersionState.NEW, VersionState.FETCHING, VersionState.VERIFYING)
        return sum(step.seconds for step in self._log.timings() if step.state not in fetching)

    def status(self) -> VersionStatus:
        """Return the record as a row of the index."""
        loaded = self.served if self.state not in ENDED else None
        under_way = self.state in {VersionState.FETCHING, VersionState.VERIFYING}
        fetched = self._fetched if under_way else None
        return VersionStatus(
            id=self.id,
            state=self.state,
            reason=self.reason,
            memory_bytes=loaded.memory_bytes if loaded else 0,
            inflight=loaded.leases if loaded else 0,
            since_s=self.since_s,
            origin=self.origin,
            content_digest=self.content_digest,
            steps=self._log.timings(),
            done_bytes=fetched.done_bytes if fetched else 0,
            total_bytes=(fetched.total_bytes or 0) if fetched else 0,
            claims=self.claims,
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

    def index(
        self,
        known: Collection[str],
        required: Collection[str] = (),
        problems: Mapping[str, str] = MappingProxyType({}),
    ) -> Sequence[VersionStatus]:
        """Return one row per version by name and number, and one with number 0 for each bare model.

        Args:
            known: models that exist.
            required: models that must exist; one without any version is shown as failed, with the reason.
            problems: model -> why its versions cannot be found out now; told where a version serves, where
                none is left, and in place of the reason above.
        """
        rows = [row for model in self._of_model for row in self._rows(model, problems.get(model, ""))]
        bare = {*known, *required}.difference(self._of_model)
        rows += [_bare(model, missing=model in required, problem=problems.get(model, "")) for model in bare]
        return tuple(sorted(rows, key=lambda row: row.id))

    def _rows(self, model: str, problem: str) -> list[VersionStatus]:
        rows = [self._row(group) for group in self._by_number(model)]
        serves = any(row.state is VersionState.READY for row in rows)
        told = VersionState.READY if serves else VersionState.UNLOADED
        return [_with_problem(row, problem) if row.state is told else row for row in rows]

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


def _with_problem(row: VersionStatus, problem: str) -> VersionStatus:
    """Return a READY or UNLOADED row with what is wrong with finding out the model's versions."""
    if not problem:
        return row
    reason = row.reason or ("serving" if row.state is VersionState.READY else "unloaded")
    return dataclasses.replace(row, reason=f"{reason}; {problem}")


def _bare(model: str, *, missing: bool, problem: str) -> VersionStatus:
    failed = missing or problem
    return VersionStatus(
        id=VersionId(model, 0, ""),
        state=VersionState.FAILED if failed else VersionState.UNLOADED,
        reason=problem or (MISSING if missing else ""),
    )
