"""What the lines put on record: each entry once, though a crash or a takeover makes it come again."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from gateway.core.state import AuditEntry
    from gateway.rollouts.ports import Journal

_TAIL: Final = 500
"""Records of one line looked through for an entry that may be there."""
_MOST: Final = 1000
"""Entries of one line remembered until they are in the chain."""

_Identity: TypeAlias = tuple[object, ...]


class Recorder:
    """Appends the entries of lines to the audit chain. Event loop only.

    Args:
        audit: the chain.
    """

    def __init__(self, audit: Journal) -> None:
        self._audit = audit
        self._given: dict[str, deque[AuditEntry]] = {}

    def record(self, entry: AuditEntry) -> None:
        """Append an entry unless it is in the chain, or on its way there."""
        known = {_identity(one) for one in self.unrecorded(entry.rollout)}
        if _identity(entry) in known or _identity(entry) in self._recorded(entry.rollout):
            return
        self._audit.append_later(entry)
        self._given.setdefault(entry.rollout, deque(maxlen=_MOST)).append(entry)

    def unrecorded(self, rollout: str) -> tuple[AuditEntry, ...]:
        """Return the entries of a line that are not in the chain for certain: a crash now would lose them."""
        given = self._given.get(rollout)
        if not given:
            return ()
        recorded = self._recorded(rollout)
        for _ in range(len(given)):
            entry = given.popleft()
            if _identity(entry) not in recorded:
                given.append(entry)
        return tuple(given)

    def _recorded(self, rollout: str) -> set[_Identity]:
        return {_identity(record.entry) for record in self._audit.tail(_TAIL, rollout)}


def _identity(entry: AuditEntry) -> _Identity:
    """Return what tells an entry from every other of its line, also after its state began anew."""
    return (entry.kind, entry.what, entry.rollout_id, entry.detail.get("serial"), entry.detail.get("at"))
