"""What is served now, answered from local state alone: leases, look-ups, index, readiness."""

from __future__ import annotations

from collections import defaultdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from gateway.core.errors import NotFound
from gateway.core.types import VersionState
from gateway.models.dormant import loads_for, with_dormant
from gateway.models.records import Records
from gateway.models.table import RoutingTable, absence

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from gateway.core.interfaces import Lease, ServedVersion, WantedVersion
    from gateway.core.types import VersionStatus
    from gateway.models.served import LoadedVersion

NO_PROBLEMS: Final[Mapping[str, str]] = MappingProxyType({})


class Catalog:
    """A ModelCatalog over a routing table and records that its subclass, the manager, keeps. Never waits."""

    def __init__(self) -> None:
        self._records = Records()
        self._table = RoutingTable()
        self._known: dict[str, frozenset[str]] = {}
        self._problems: dict[str, Mapping[str, str]] = {}
        self._required: frozenset[str] | None = None
        self._required_anyway: frozenset[str] = frozenset()
        self._draining = False
        self._lazy: Mapping[str, Sequence[WantedVersion]] = {}

    def announce(self, claim: str, models: Iterable[str], problems: Mapping[str, str] = NO_PROBLEMS) -> None:
        """Name the models that exist for `claim`, wanted or not, so that the index shows them.

        Args:
            claim: whose models they are; what it announced before is forgotten.
            models: their names.
            problems: model -> why its versions cannot be found out now, beginning with `resolve: `; the index
                shows it as the reason of a model without a version, and beside what serves.
        """
        self._known[claim] = frozenset(models)
        self._problems[claim] = dict(problems)

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
        return tuple(v.id.number for v in self.loaded_versions(model))

    def served(self) -> Sequence[ServedVersion]:
        """Return every READY version, by name and number."""
        return self._table.versions

    def index(self) -> Sequence[VersionStatus]:
        """Return every known version and bare model; as `ModelCatalog.index`."""
        known = frozenset[str]().union(*self._known.values())
        rows = self._records.index(known, self._required_anyway, self._joined_problems())
        return with_dormant(rows, self._lazy)

    def lazy_versions(self, model: str) -> Sequence[WantedVersion]:
        """Return the lazy versions of a model that somebody claims, loaded or not, by ascending number."""
        return self._lazy.get(model, ())

    def loaded_versions(self, model: str) -> Sequence[LoadedVersion]:
        """Return the READY versions of a model, by ascending number."""
        # Built by ascending number; the text "" repeats one of them.
        return tuple(v for text, v in self._table.routes.get(model, {}).items() if text)

    def is_ready(self) -> bool:
        """Whether every required model has a READY version; False before the first `apply` and in a drain."""
        if self._draining or self._required is None:
            return False
        return self._required.union(self._required_anyway) <= self._table.routes.keys()

    def is_model_ready(self, model: str, version: str = "") -> bool:
        """Whether that version, or any, is READY, or is loaded on first use and can be asked for."""
        if self._table.find(model, version) is not None:
            return True
        self._check_known(model)
        return loads_for(version, self.lazy_versions(model), self._records.of(model))

    def begin_drain(self) -> None:
        """Report the server as not ready from now on. Models go on answering."""
        self._draining = True

    def _find(self, model: str, version: str) -> LoadedVersion:
        found = self._table.find(model, version)
        if found is None:
            raise absence(model, version, self._states(model))
        return found

    def _check_known(self, model: str) -> None:
        if (
            not self._records.of(model)
            and model not in self._lazy
            and not any(model in names for names in self._known.values())
        ):
            raise NotFound(f"Request for unknown model: '{model}' is not found")

    def _joined_problems(self) -> Mapping[str, str]:
        joined: dict[str, str] = {}
        for problems in self._problems.values():
            for model, problem in problems.items():
                joined[model] = f"{joined[model]}; {problem}" if model in joined else problem
        return joined

    def _states(self, model: str) -> Mapping[int, Collection[VersionState]]:
        states: dict[int, set[VersionState]] = defaultdict(set)
        for record in self._records.of(model):
            states[record.id.number].add(record.state)
        for wanted in self.lazy_versions(model):
            states[wanted.id.number].add(VersionState.NEW)
        return states
