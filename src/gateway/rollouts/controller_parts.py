"""What the controller of rollouts works with."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.clock import Clock
    from gateway.core.state import StateStore
    from gateway.core.targets import TargetSource
    from gateway.rollouts.ports import Journal, Mirrors, Notices, Routes, SpecSource, VersionClaims


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerParts:
    """What the controller works with; none of it is its own to close.

    Attributes:
        files: follows the rollout files.
        store: where states are kept.
        audit: the audit chain.
        claims: loads versions.
        sources: where versions come from.
        routes: where requests go.
        mirrors: what shadows have seen.
        notices: tells whoever wants to know of transitions.
        clock: monotonic time and timers.
        wall_s: seconds since the epoch.
        replica: name of this process.
        new_boot_id: makes the id of this process's life.
    """

    files: SpecSource
    store: StateStore
    audit: Journal
    claims: VersionClaims
    sources: Sequence[TargetSource]
    routes: Routes
    mirrors: Mirrors
    notices: Notices
    clock: Clock
    wall_s: Callable[[], float]
    replica: str
    new_boot_id: Callable[[], str] = field(default=lambda: uuid.uuid4().hex)
