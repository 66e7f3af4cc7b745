"""What the controller needs of the rest of the gateway: small protocols, so that it knows none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence

    from gateway.core.evidence import ArmCounts, RoutePlan, ShadowCounts
    from gateway.core.interfaces import ServedVersion, WantedVersion
    from gateway.core.rollout import RolloutSpec, SplitSpec
    from gateway.core.state import AuditEntry, AuditRecord
    from gateway.core.types import VersionId, VersionStatus


class SpecFile(Protocol):
    """A valid file."""

    @property
    def spec(self) -> RolloutSpec | SplitSpec:
        """What it says."""

    @property
    def path(self) -> str:
        """Where it was read from."""

    @property
    def hash(self) -> str:
        """SHA-256 of its bytes."""

    @property
    def author(self) -> str:
        """Who wrote it."""


class SpecStatus(Protocol):
    """Where one file stands, valid or not."""

    @property
    def path(self) -> str:
        """Of the file."""

    @property
    def file_hash(self) -> str:
        """Of what was found last."""

    @property
    def active_hash(self) -> str:
        """Of what is in force."""

    @property
    def name(self) -> str:
        """Of the rollout in force; the model of a split."""

    @property
    def error(self) -> str:
        """Why what was found is not in force."""

    @property
    def since_s(self) -> float:
        """Monotonic time since when it stands so."""

    @property
    def warnings(self) -> Sequence[str]:
        """What is odd in what is in force."""


class SpecFiles(Protocol):
    """Every file at one moment."""

    @property
    def specs(self) -> Sequence[SpecFile]:
        """What is in force."""

    @property
    def statuses(self) -> Sequence[SpecStatus]:
        """Of every file."""

    @property
    def complete(self) -> bool:
        """Whether what is not among `specs` was deleted on purpose."""


class SpecSource(Protocol):
    """Follows the files."""

    async def look(self) -> SpecFiles:
        """Look now; not while `watch` runs."""

    def watch(self) -> AsyncGenerator[SpecFiles, None]:
        """Give every change."""


class VersionClaims(Protocol):
    """Loads versions: the model manager."""

    def apply(self, claim: str, wanted: Sequence[WantedVersion]) -> None:
        """Set the complete set that `claim` wants."""

    def served(self) -> Sequence[ServedVersion]:
        """Return every READY version."""

    def get(self, model: str, version: str = "") -> ServedVersion:
        """Return a READY version; the highest when `version` is empty."""

    def index(self) -> Sequence[VersionStatus]:
        """Return every known version."""

    def cause(self, version: VersionId) -> Exception | None:
        """Return what outside its files a FAILED version was met by; None: its files are to blame."""


class Routes(Protocol):
    """Where requests go."""

    def apply(self, plans: Iterable[RoutePlan]) -> None:
        """Put the complete set of plans in force."""

    def evidence(self) -> Mapping[tuple[str, int], Mapping[str, ArmCounts]]:
        """Return totals by (rollout_id, step) and arm."""


class Mirrors(Protocol):
    """What shadows have seen."""

    def evidence(self) -> Mapping[tuple[str, int], Mapping[str, ShadowCounts]]:
        """Return totals by (rollout_id, step) and shadow."""


class Journal(Protocol):
    """The audit chain, as the controller uses it."""

    def append_later(self, entry: AuditEntry) -> None:
        """Append as soon as the disk lets it, in order; never waits and never fails."""

    def tail(self, count: int, rollout: str = "", /) -> Sequence[AuditRecord]:
        """Return the newest records, of one rollout when it is named."""


class Notices(Protocol):
    """Tells whoever wants to know of transitions; never blocks."""

    def offer(self, notice: Mapping[str, Any]) -> None:
        """Send it, or count it as dropped."""
