"""The repository index as protobuf and JSON."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from gateway._proto import open_inference_pb2 as pb
from gateway.core.types import VersionState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.core.types import VersionStatus

# The protocol knows four states. A version that drains still finishes what it has and takes nothing new.
_STATES: Final[Mapping[VersionState, str]] = MappingProxyType(
    {
        VersionState.NEW: "LOADING",
        VersionState.FETCHING: "LOADING",
        VersionState.VERIFYING: "LOADING",
        VersionState.LOADING: "LOADING",
        VersionState.CHECKING: "LOADING",
        VersionState.WARMING: "LOADING",
        VersionState.TESTING: "LOADING",
        VersionState.READY: "READY",
        VersionState.DRAINING: "UNLOADING",
        VersionState.UNLOADED: "UNAVAILABLE",
        VersionState.FAILED: "UNAVAILABLE",
    }
)


def index_message(
    statuses: Iterable[VersionStatus], *, ready_only: bool = False
) -> pb.RepositoryIndexResponse:
    """Return one entry per version; a model without any has one entry without a version.

    Args:
        statuses: what is known.
        ready_only: leave out what cannot serve now.
    """
    shown = (s for s in statuses if not ready_only or s.state is VersionState.READY)
    return pb.RepositoryIndexResponse(models=[_entry(status) for status in shown])


def index_json(statuses: Iterable[VersionStatus], *, ready_only: bool = False) -> list[dict[str, Any]]:
    """Return the same as a JSON array; `version` and `reason` are left out where there is none."""
    return [
        {name: value for name, value in _fields(entry).items() if value}
        for entry in index_message(statuses, ready_only=ready_only).models
    ]


def _fields(entry: pb.RepositoryIndexResponse.ModelIndex) -> dict[str, str]:
    return {"name": entry.name, "version": entry.version, "state": entry.state, "reason": entry.reason}


def _entry(status: VersionStatus) -> pb.RepositoryIndexResponse.ModelIndex:
    number = status.id.number
    return pb.RepositoryIndexResponse.ModelIndex(
        name=status.id.model,
        version=str(number) if number else "",
        state=_STATES[status.state],
        reason=status.reason or ("unloaded" if status.state is VersionState.UNLOADED else ""),
    )
