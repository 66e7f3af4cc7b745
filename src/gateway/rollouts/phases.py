"""The states of a rollout: which transition is legal, and nothing else."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# IDLE ─▶ RESOLVING ─▶ LOADING ─▶ WARMING ─▶ step 0 ─▶ ... ─▶ PROMOTING ─▶ ROLLBACK_WINDOW ─▶ PROMOTED
#
# A step that serves is BAKING, or HOLDING while something forbids it to go on; one that waits for people is
# AWAITING_APPROVAL, one that waits for time or a word PAUSED_STEP. Between two steps nothing changes until
# every live replica has acknowledged the next one.
# A failure before PROMOTING is done: ─▶ ABORTING ─▶ ABORTED; in the ROLLBACK_WINDOW: ─▶ ROLLING_BACK
# ─▶ ROLLED_BACK. ABORTING and ROLLING_BACK have lowered the weight and wait for the store; ABORTED and
# ROLLED_BACK are tombstones that only another specification or an audited retry leaves (─▶ RESOLVING).
# An edit of the target or of steps gone through: ─▶ SUPERSEDED ─▶ RESOLVING. A file that goes away:
# (─▶ ABORTING ─▶) IDLE. `paused` and `frozen` are no states: they block starts and advances in any state.


class Phase(enum.Enum):
    """Where a rollout stands; the transitions are drawn above."""

    IDLE = "idle"
    RESOLVING = "resolving"
    LOADING = "loading"
    WARMING = "warming"
    BAKING = "baking"
    HOLDING = "holding"
    AWAITING_APPROVAL = "awaiting_approval"
    PAUSED_STEP = "paused_step"
    PROMOTING = "promoting"
    ROLLBACK_WINDOW = "rollback_window"
    PROMOTED = "promoted"
    ABORTING = "aborting"
    ABORTED = "aborted"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"


PREPARING: Final = frozenset({Phase.RESOLVING, Phase.LOADING, Phase.WARMING})
"""Before the first step: no canary has any traffic."""
STEPPING: Final = frozenset({Phase.BAKING, Phase.HOLDING, Phase.AWAITING_APPROVAL, Phase.PAUSED_STEP})
"""In a step: the canary may have traffic."""
IN_PROGRESS: Final = PREPARING | STEPPING | {Phase.PROMOTING}
"""An abort ends it."""
WITHDRAWING: Final = frozenset({Phase.ABORTING, Phase.ROLLING_BACK})
"""Withdrawn, but not yet on record."""
TOMBSTONES: Final = frozenset({Phase.ABORTED, Phase.ROLLED_BACK})
"""Ends that only another specification or an audited retry leaves."""
RESTING: Final = TOMBSTONES | {Phase.IDLE, Phase.PROMOTED}
"""Nothing is under way."""

_WITHDRAWN = frozenset({Phase.ABORTING, Phase.SUPERSEDED})
_NEXT = STEPPING | {Phase.PROMOTING} | _WITHDRAWN
TRANSITIONS: Final[Mapping[Phase, frozenset[Phase]]] = {
    Phase.IDLE: frozenset({Phase.RESOLVING}),
    Phase.RESOLVING: frozenset({Phase.LOADING, Phase.IDLE, Phase.ABORTED}) | _WITHDRAWN,
    Phase.LOADING: frozenset({Phase.WARMING}) | _WITHDRAWN,
    Phase.WARMING: _NEXT | {Phase.LOADING},
    Phase.BAKING: _NEXT,
    Phase.HOLDING: _NEXT,
    Phase.AWAITING_APPROVAL: _NEXT,
    Phase.PAUSED_STEP: _NEXT,
    Phase.PROMOTING: frozenset({Phase.ROLLBACK_WINDOW}) | STEPPING | _WITHDRAWN,
    Phase.ROLLBACK_WINDOW: frozenset({Phase.PROMOTED, Phase.ROLLING_BACK, Phase.IDLE, Phase.RESOLVING}),
    Phase.PROMOTED: frozenset({Phase.RESOLVING, Phase.IDLE}),
    Phase.ABORTING: frozenset({Phase.ABORTED, Phase.IDLE}),
    Phase.ABORTED: frozenset({Phase.RESOLVING, Phase.IDLE}),
    Phase.ROLLING_BACK: frozenset({Phase.ROLLED_BACK, Phase.IDLE}),
    Phase.ROLLED_BACK: frozenset({Phase.RESOLVING, Phase.IDLE}),
    Phase.SUPERSEDED: frozenset({Phase.RESOLVING}),
}
