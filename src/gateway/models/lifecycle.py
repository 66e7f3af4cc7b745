"""The state machine of one model version: which transition is legal, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.types import VersionState

if TYPE_CHECKING:
    from collections.abc import Mapping

# NEW ──▶ LOADING ──▶ WARMING ──▶ READY ──▶ DRAINING ──▶ UNLOADED
#  │         │ │         │ │                  ▲
#  │         │ └─────────┼─┴──(withdrawn)─────┘
#  │         └──(failed)─┴──▶ FAILED
#  └──(withdrawn before its turn)─────────────────────▶ UNLOADED
#
# FAILED and UNLOADED are ends: another attempt is another record, so that what happened stays on record.
TRANSITIONS: Final[Mapping[VersionState, frozenset[VersionState]]] = {
    VersionState.NEW: frozenset({VersionState.LOADING, VersionState.UNLOADED}),
    VersionState.LOADING: frozenset({VersionState.WARMING, VersionState.FAILED, VersionState.DRAINING}),
    VersionState.WARMING: frozenset({VersionState.READY, VersionState.FAILED, VersionState.DRAINING}),
    VersionState.READY: frozenset({VersionState.DRAINING}),
    VersionState.DRAINING: frozenset({VersionState.UNLOADED}),
    VersionState.UNLOADED: frozenset(),
    VersionState.FAILED: frozenset(),
}

STARTING: Final = frozenset({VersionState.NEW, VersionState.LOADING, VersionState.WARMING})
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
