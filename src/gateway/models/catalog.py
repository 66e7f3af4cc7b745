"""What is served now, answered from local state alone: leases, look-ups, index, readiness."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from gateway.core.errors import NotFound
from gateway.models.records import Records
from gateway.models.table import RoutingTable, absence

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from gateway.core.interfaces import Lease, ServedVersion
    from gateway.core.types import VersionState, VersionStatus
    from gateway.models.served import LoadedVersion


class Catalog:
    """A ModelCatalog over a routing table and records that its subclass, the manager, keeps. Never waits."""

    def __init__(self) -> None:
        self._records = Records()
        self._table = RoutingTable()
        self._known: dict[str, frozenset[str]] = {}
        self._required: frozenset[str] | None = None
        self._required_anyway: frozenset[str] = frozenset()
        self._draining = False

    def announce(self, claim: str, models: Iterable[str]) -> None:
        """Name the models that exist for `claim`, wanted or not, so that the index shows them."""
        self._known[claim] = frozenset(models)

    def require(self, models: Iterable[str]) -> None:
        """Set the models that must be READY for the server to be, whether or not anything claims them."""
        self._required_anyway = frozenset(models)

    def known(self) -> frozenset[str]:
        """Return the names of the models there are: announced, or with a version on record."""
        return self._records.models().union(*self._known.values())

    def lease(self, model: str, version: str = "") -> Lease:
        """Take a lease; as `ModelCatalog.lease`. Two dictionary look-ups and a counter."""
        try:
            return self._table.routes[model][version].take()
        except KeyError:
            return self._find(model, version).take()

    def get(self, model: str, version: str = "") -> ServedVersion:
        """Look at a READY version; as `ModelCatalog.get`."""
        return self._find(model, version)

    def ready_versions(self, model: str) -> Sequence[int]:
        """Return the READY numbers of a model, ascending; as `ModelCatalog.ready_versions`."""
        self._check_known(model)
        return tuple(v.id.number for v in self._table.versions if v.id.model == model)

    def served(self) -> Sequence[ServedVersion]:
        """Return every READY version, by name and number."""
        return self._table.versions

    def index(self) -> Sequence[VersionStatus]:
        """Return every known version and bare model; as `ModelCatalog.index`."""
        known = frozenset[str]().union(*self._known.values())
        return self._records.index(known, required=self._required_anyway)

    def is_ready(self) -> bool:
        """Whether every required model has a READY version; False before the first `apply` and in a drain."""
        if self._draining or self._required is None:
            return False
        return self._required.union(self._required_anyway) <= self._table.routes.keys()

    def is_model_ready(self, model: str, version: str = "") -> bool:
        """Whether that version, or any, is READY; as `ModelCatalog.is_model_ready`."""
        if self._table.find(model, version) is not None:
            return True
        self._check_known(model)
        return False

    def begin_drain(self) -> None:
        """Report the server as not ready from now on. Models go on answering."""
        self._draining = True

    def _find(self, model: str, version: str) -> LoadedVersion:
        found = self._table.find(model, version)
        if found is None:
            raise absence(model, version, self._states(model))
        return found

    def _check_known(self, model: str) -> None:
        if not self._records.of(model) and not any(model in names for names in self._known.values()):
            raise NotFound(f"Request for unknown model: '{model}' is not found")

    def _states(self, model: str) -> Mapping[int, Collection[VersionState]]:
        states: dict[int, set[VersionState]] = defaultdict(set)
        for record in self._records.of(model):
            states[record.id.number].add(record.state)
        return states
