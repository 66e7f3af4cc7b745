"""How lazy versions that are not loaded appear: known, in no hurry, and ready to be asked for. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from gateway.core.types import VersionState, VersionStatus
from gateway.models.desired import DesiredVersion
from gateway.models.table import canonical_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.core.interfaces import WantedVersion
    from gateway.models.records import VersionRecord

ON_FIRST_USE: Final = "loaded on first use"
"""Why a lazy version that nobody has asked for is not READY."""


def with_dormant(
    rows: Sequence[VersionStatus], lazy: Mapping[str, Sequence[WantedVersion]]
) -> Sequence[VersionStatus]:
    """Return the rows of an index with those of lazy versions that are not loaded, by name and number.

    Args:
        rows: of versions on record, and of bare models under number 0.
        lazy: the lazy versions there are, by model.
    """
    if not lazy:
        return rows
    shown = {row.id[:2]: row for row in rows}
    for model, versions in lazy.items():
        shown.pop((model, 0), None)
        for wanted in versions:
            row = shown.get(wanted.id[:2])
            if row is None or (row.state is VersionState.UNLOADED and row.id != wanted.id):
                row = VersionStatus(id=wanted.id, state=VersionState.UNLOADED)
            if row.state is VersionState.UNLOADED:
                origin = wanted.origin if isinstance(wanted, DesiredVersion) else None
                shown[wanted.id[:2]] = dataclasses.replace(row, reason=ON_FIRST_USE, origin=origin)
    return tuple(shown[key] for key in sorted(shown))


def loads_for(version: str, lazy: Sequence[WantedVersion], records: Iterable[VersionRecord]) -> bool:
    """Whether a request for that version of a model would be answered once it is loaded.

    False when nothing of it is lazy, or the last load of everything that it may mean has failed.
    """
    number = canonical_version(version)
    failed = {record.id for record in records if record.state is VersionState.FAILED}
    return any(number in {"", str(v.id.number)} and v.id not in failed for v in lazy)
