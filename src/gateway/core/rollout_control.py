"""The seam between administration and rollouts: what people see of them, and what they may do."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Verb(enum.Enum):
    """What an operator may ask of a rollout."""

    PAUSE = "pause"
    """Nothing advances until `resume`; an abort still happens."""
    RESUME = "resume"
    """Go on after `pause`, or past a pause step."""
    APPROVE = "approve"
    """Approve of what the evidence shows now, for the step that waits for it."""
    ABORT = "abort"
    """Give everything back to stable."""
    PROMOTE = "promote"
    """Promote now, whatever the gates say; approvals that the file asks for are still needed."""
    ROLLBACK = "rollback"
    """Go back to the old stable while it is kept warm."""
    RETRY = "retry"
    """Begin an aborted rollout again."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks.

    Attributes:
        name: the user's name where `is_known`; else where the request came from.
        is_known: the operating system vouches for the name.
        roles: the groups that the user is in.
    """

    name: str
    is_known: bool
    roles: frozenset[str] = frozenset()

    def __str__(self) -> str:
        """Return the name as the audit log has it."""
        return f"user:{self.name}" if self.is_known else f"anonymous:{self.name}"


@dataclass(frozen=True, slots=True)
class Command:
    """One wish of an operator.

    Attributes:
        rollout: its name.
        verb: what to do.
        actor: who asks.
        reason: why, for the audit log; may be empty.
        evidence_hash: with APPROVE, of the evidence that was looked at; empty approves of what there is now.
    """

    rollout: str
    verb: Verb
    actor: Actor
    reason: str = ""
    evidence_hash: str = ""


class RolloutControl(Protocol):
    """The rollouts of a running gateway. All but `operate` reads local state and never waits."""

    def rollouts(self) -> Sequence[dict[str, Any]]:
        """Return a document for each rollout, by name; JSON types."""

    def rollout(self, name: str) -> dict[str, Any]:
        """Return one rollout's document.

        Raises:
            NotFound: there is none of that name; the message says which there are.
        """

    def files(self) -> Sequence[dict[str, Any]]:
        """Return where each rollout file stands: path, hash, active_hash, error, since."""

    def splits(self) -> Sequence[dict[str, Any]]:
        """Return the plain splits: model, arms with weights and counts, shadows with counts."""

    async def operate(self, command: Command) -> dict[str, Any]:
        """Do what an operator asks; returns the rollout's document when it is recorded.

        Raises:
            NotFound: there is no such rollout.
            InvalidRequest: it makes no sense now; the message says why and what would.
            PermissionDenied: this actor may not; the message says who may.
            Unavailable: it could not be recorded, and nothing was done (an abort is done all the same).
        """

    def changes(self) -> AsyncIterator[dict[str, Any]]:
        """Give the document of each rollout that has changed, until closed; slow readers miss some."""
