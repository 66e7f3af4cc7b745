"""Seams of what survives a restart: documents with compare-and-set, and the audit chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gateway.core.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class StateUnavailable(GatewayError):
    """The store cannot be read or written now (disk full, lost lock, unreachable); nothing was changed."""


class RevisionConflict(GatewayError):
    """The document has another revision than the writer had read; somebody else wrote it."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document.

    Attributes:
        key: `rollouts/fraud-score`.
        revision: ascending with every write of the key, from 1; never reused, also not after a deletion.
        value: JSON types.
    """

    key: str
    revision: int
    value: Mapping[str, Any]


class StateStore(Protocol):
    """Documents that survive crashes, written by compare-and-set."""

    async def read(self, key: str) -> Document | None:
        """Return the document; None when there is none.

        Raises:
            StateUnavailable: it cannot be read.
        """

    async def keys(self, prefix: str = "") -> list[str]:
        """Return the keys of all documents that begin so, sorted."""

    async def write(self, key: str, value: Mapping[str, Any], revision: int) -> Document:
        """Write a document whose revision is `revision` now (0: it must not exist); durable on return.

        Raises:
            RevisionConflict: it has another revision. Nothing was written.
            StateUnavailable: whether it was written is not known where the cause says so; else it was not.
        """

    def watch(self, prefix: str = "") -> AsyncIterator[Document]:
        """Give every document that begins so now, then each one as it is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Something that happened, for the audit chain.

    Attributes:
        kind: `transition`, `operator`, `approval`, `config`, `boot`.
        what: in one word, `advance`, `abort`, `approve`.
        who: `user:alice (uid 1000)`, `controller`, `file:fraud.yaml`.
        rollout: name, empty when it concerns none.
        rollout_id: likewise.
        evidence_hash: SHA-256 of the canonical JSON of the evidence that it rests on; empty when on none.
        config_hash: SHA-256 of the rollout file in force.
        detail: JSON types.
    """

    kind: str
    what: str
    who: str
    rollout: str = ""
    rollout_id: str = ""
    evidence_hash: str = ""
    config_hash: str = ""
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """An entry in its place in the chain.

    Attributes:
        seq: from 1, without gaps.
        at: wall-clock seconds since the epoch.
        previous: hash of the record before; 64 zeros for the first.
        hash: SHA-256 over the RFC 8785 form of everything else.
        entry: what happened.
    """

    seq: int
    at: float
    previous: str
    hash: str
    entry: AuditEntry


class AuditLog(Protocol):
    """Append-only, hash-chained, durable."""

    async def append(self, *entries: AuditEntry) -> AuditRecord:
        """Append entries together; return the last one's record, durable on return.

        Raises:
            StateUnavailable: nothing was appended.
        """

    def tail(self, count: int, rollout: str = "") -> list[AuditRecord]:
        """Return the newest records, oldest first, of one rollout when it is named; from memory, bounded."""
