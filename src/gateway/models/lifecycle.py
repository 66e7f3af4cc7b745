"""The state machine of one model version: which transition is legal, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.types import VersionState

if TYPE_CHECKING:
    from collections.abc import Mapping

# NEW ─▶ FETCHING ─▶ VERIFYING ─▶ LOADING ─▶ CHECKING ─▶ WARMING ─▶ TESTING ─▶ READY ─▶ DRAINING ─▶ UNLOADED
#
# A step that a version has no need of is left out: one on the local disk starts with LOADING, one that brings
# no golden test goes from WARMING to READY. From NEW a withdrawal leads to UNLOADED, from any step between it
# to DRAINING; a failure of any step leads to FAILED. FAILED and UNLOADED are ends: another attempt is another
# record, so that what happened stays on record.
STEPS: Final = (
    VersionState.FETCHING,
    VersionState.VERIFYING,
    VersionState.LOADING,
    VersionState.CHECKING,
    VersionState.WARMING,
    VersionState.TESTING,
)
"""What is done with a version before it is READY, in this order."""

_AFTER: Final[Mapping[VersionState, frozenset[VersionState]]] = {
    VersionState.NEW: frozenset({VersionState.FETCHING, VersionState.LOADING}),
    VersionState.FETCHING: frozenset({VersionState.VERIFYING}),
    VersionState.VERIFYING: frozenset({VersionState.LOADING}),
    VersionState.LOADING: frozenset({VersionState.CHECKING, VersionState.WARMING}),
    VersionState.CHECKING: frozenset({VersionState.WARMING}),
    VersionState.WARMING: frozenset({VersionState.TESTING, VersionState.READY}),
    VersionState.TESTING: frozenset({VersionState.READY}),
}
TRANSITIONS: Final[Mapping[VersionState, frozenset[VersionState]]] = {
    VersionState.NEW: _AFTER[VersionState.NEW] | {VersionState.UNLOADED},
    **{step: _AFTER[step] | {VersionState.FAILED, VersionState.DRAINING} for step in STEPS},
    VersionState.READY: frozenset({VersionState.DRAINING}),
    VersionState.DRAINING: frozenset({VersionState.UNLOADED}),
    VersionState.UNLOADED: frozenset(),
    VersionState.FAILED: frozenset(),
}

STARTING: Final = frozenset({VersionState.NEW, *STEPS})
"""States on the way to READY."""
ENDED: Final = frozenset({VersionState.UNLOADED, VersionState.FAILED})
"""States that hold no model."""


class IllegalTransition(Exception):
    """A version was moved along no arrow of the diagram."""


def check_transition(current: VersionState, to: VersionState) -> VersionState:
    """Return `to`.

    Raises:
        IllegalTransition: no arrow leads from `current` to `to`.
    """
    if to not in TRANSITIONS[current]:
        raise IllegalTransition(f"{current.value} -> {to.value}")
    return to
