"""The routing table: an immutable map from names and version texts to READY versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.errors import InvalidRequest, NotFound, NotReady
from gateway.core.types import VersionState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from gateway.models.served import LoadedVersion


class RoutingTable:
    """What is READY at one moment. Never changed once built: a switch replaces the whole table.

    Attributes:
        routes: model -> version text -> version; the text "" leads to the highest number.
        versions: every version, by name and number.
    """

    __slots__ = ("routes", "versions")

    def __init__(self, versions: Iterable[LoadedVersion] = ()) -> None:
        self.versions = tuple(sorted(versions, key=lambda v: v.id[:2]))
        routes: dict[str, dict[str, LoadedVersion]] = {}
        # Ascending numbers: the highest is the last to claim "".
        for version in self.versions:
            of_model = routes.setdefault(version.id.model, {})
            of_model[str(version.id.number)] = of_model[""] = version
        self.routes: Mapping[str, Mapping[str, LoadedVersion]] = routes

    def find(self, model: str, version: str) -> LoadedVersion | None:
        """Return the version asked for, or None; any decimal spelling of its number will do.

        Raises:
            InvalidRequest: `version` is neither empty nor a positive integer.
        """
        of_model = self.routes.get(model)
        if of_model is None:
            return None
        return of_model.get(version) or of_model.get(canonical_version(version))


def canonical_version(version: str) -> str:
    """Return a version text without leading zeros; empty stays empty.

    Raises:
        InvalidRequest: it is not a positive integer.
    """
    if not version:
        return ""
    digits = version.isascii() and version.isdigit() and len(version) <= 19
    if not digits or int(version) == 0:
        raise InvalidRequest(
            f"failed to get model version from specified version string '{version[:64]}', "
            "version should be an integral value > 0"
        )
    return str(int(version))


def absence(
    model: str, version: str, states: Mapping[int, Collection[VersionState]]
) -> NotFound | NotReady | InvalidRequest:
    """Return the error for a version that is not in the table, in Triton's words.

    Args:
        model: the model asked for.
        version: the version text asked for.
        states: number -> states of every version of the model on record; empty for an unknown model.

    What may come back (loading, failed and awaiting a fix, draining under a reload) is NotReady; what is
    not there, or was unloaded on purpose, is NotFound.
    """
    try:
        number = canonical_version(version)
    except InvalidRequest as error:
        return error
    prefix = f"Request for unknown model: '{model}'"
    if not states:
        return NotFound(f"{prefix} is not found")
    if number:
        of_number = states.get(int(number))
        if not of_number:
            return NotFound(f"{prefix} version {number} is not found")
        return _kind(of_number)(f"{prefix} version {number} is not at ready state")
    return _kind({s for group in states.values() for s in group})(f"{prefix} has no available versions")


def _kind(states: Collection[VersionState]) -> type[NotFound | NotReady]:
    return NotFound if set(states) == {VersionState.UNLOADED} else NotReady
