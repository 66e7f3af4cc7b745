"""What a line of rollouts serves in this process: the plan in force, and the versions loaded for it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from gateway.core.errors import GatewayError
from gateway.core.registry import RegistryError
from gateway.rollouts.pausing import pause

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.evidence import RoutePlan
    from gateway.core.types import VersionId
    from gateway.rollouts.line_parts import LineParts

_log = logging.getLogger(__name__)

RESTORE_PAUSE_S: Final = 2.0
"""Between attempts to make a version of an earlier life claimable."""


class Serving:
    """The plan of a line and its versions. Event loop only.

    Where a plan's stable version is another than the one that serves and not READY, the plan is in force as
    soon as that is so; what serves keeps serving, and is kept loaded, until then. What is routed to is always
    kept loaded.

    Args:
        name: of the line.
        parts: what it works with.
        restored: called when versions of an earlier life can be claimed.
        failed: called when one never will be, with the reason.

    Attributes:
        plan: decided on for here.
        claimed: versions kept loaded.
    """

    def __init__(
        self,
        name: str,
        parts: LineParts,
        restored: Callable[[], None],
        failed: Callable[[VersionId, str], None],
    ) -> None:
        self.plan: RoutePlan | None = None
        self.claimed: frozenset[VersionId] = frozenset()
        self._name = name
        self._parts = parts
        self._restored = restored
        self._failed = failed
        self._routed: RoutePlan | None = None
        self._needed: frozenset[VersionId] = frozenset()
        self._restoring: set[VersionId] = set()

    def follow(self, plan: RoutePlan | None) -> None:
        """Have a plan in force now, or as soon as may be."""
        self.plan = plan
        self.put_in_force()

    def put_in_force(self) -> None:
        """Put the plan in force unless it has to wait; again whenever a version has changed its state."""
        if self.plan == self._routed or (self.plan is not None and self._must_wait(self.plan)):
            return
        self._routed = self.plan
        self._parts.route(self._name, self.plan)
        if self.claimed != self._needed:
            self.claim(self._needed)

    def _must_wait(self, plan: RoutePlan) -> bool:
        """Whether another version than a plan's stable one serves now, and that is not READY."""
        present = self._parts.pins.present
        ready = {served.id for served in self._parts.claims.served()}
        if self._parts.is_starting() or not plan.arms or present(plan.arms[0].version) in ready:
            return False
        if self._routed is None or not self._routed.arms:
            return any(version.model == plan.model for version in ready)
        serving = self._routed.arms[0].version
        return serving != plan.arms[0].version and present(serving) in ready

    def claim(self, needed: frozenset[VersionId]) -> None:
        """Keep loaded what is needed and, until another plan is in force, what is routed to."""
        self._needed = needed
        versions = self.claimed = needed | _used(self._routed)
        pins = self._parts.pins
        self._parts.claims.apply(f"rollout {self._name}", pins.wanted(versions))
        for version in versions - {pins.original(wanted.id) for wanted in pins.wanted(versions)}:
            if version not in self._restoring:
                self._restoring.add(version)
                self._parts.start(self._restore(version))

    def ready(self) -> list[VersionId]:
        """Return the versions kept loaded that are READY."""
        ready = {served.id for served in self._parts.claims.served()}
        return [version for version in sorted(self.claimed) if self._parts.pins.present(version) in ready]

    async def _restore(self, version: VersionId) -> None:
        """Make a version of an earlier life claimable, however long its source takes to answer."""
        try:
            while version in self.claimed:
                try:
                    await self._parts.pins.restore(version)
                except RegistryError as error:
                    _log.warning("rollout %r: version %d: %s", self._name, version.number, error)
                    if not error.may_pass:
                        raise
                    await pause(self._parts.clock, RESTORE_PAUSE_S)
                else:
                    break
        except GatewayError as error:
            self._failed(version, str(error))
        else:
            self.claim(self._needed)
            if self._routed is not None:
                self._parts.route(self._name, self._routed)
            self._restored()
            self.put_in_force()
        finally:
            self._restoring.discard(version)


def _used(plan: RoutePlan | None) -> frozenset[VersionId]:
    """Return every version that a plan routes to."""
    if plan is None:
        return frozenset()
    arms, shadows = {arm.version for arm in plan.arms}, {one.version for one in plan.shadows}
    return frozenset(arms | shadows)
