"""One record of the audit chain as a line, and whether a line continues the chain. Pure.

A line is the RFC 8785 form of `seq`, `at`, `previous`, `entry` and `hash`, where `hash` is the SHA-256 of the
RFC 8785 form of the other four, in hex. `previous` is the hash of the record before; 64 zeros for the first.
So anybody can check a chain with a JSON canonicaliser and sha256sum.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import rfc8785

from gateway.core.state import AuditEntry, AuditRecord

NO_RECORD: Final = "0" * 64
MAX_ENTRY_BYTES: Final = 256 << 10
"""Of an entry; the detail of a longer one is replaced by its size and hash."""
_EXACT: Final = (1 << 53) - 1
_MAX_DEPTH: Final = 32
_FIELDS: Final = ("kind", "what", "who", "rollout", "rollout_id", "evidence_hash", "config_hash")


class FaultKind(enum.Enum):
    """What can be wrong with a chain."""

    ALTERED = "altered"
    """A record is not what was hashed, or not a record."""
    GAP = "gap"
    """Records are missing, or are there twice."""
    BROKEN_LINK = "broken link"
    """A record does not follow the one before it: one of the two was replaced."""
    TORN = "torn"
    """The last line is incomplete: a crash, or a write under way; mended at the next start."""
    CUT_OFF = "cut off"
    """The chain ends before a record that is known to have been there."""


class ChainFault(Exception):
    """A line does not continue the chain.

    Attributes:
        kind: in what way.
    """

    def __init__(self, kind: FaultKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain, or one end that it had: kept elsewhere, it shows later that nothing was cut off.

    Attributes:
        seq: of the last record; 0 when there is none.
        hash: of the last record.
    """

    seq: int = 0
    hash: str = NO_RECORD

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"


def head_of(record: AuditRecord) -> Head:
    """Return the head of a chain that ends with a record."""
    return Head(record.seq, record.hash)


def seal(head: Head, at: float, entry: AuditEntry) -> tuple[AuditRecord, bytes]:
    """Return the record that follows `head`, and its line.

    What JSON or RFC 8785 cannot hold in the entry (integers beyond 2**53, NaN, other types) becomes text:
    what happened is recorded in any case.
    """
    fit = _fitted(entry)
    body: dict[str, Any] = {
        "seq": head.seq + 1,
        "at": float(at),
        "previous": head.hash,
        "entry": _fields(fit),
    }
    digest = hashlib.sha256(rfc8785.dumps(body)).hexdigest()
    line = rfc8785.dumps({**body, "hash": digest}) + b"\n"
    return AuditRecord(head.seq + 1, float(at), head.hash, digest, fit), line


def follow(head: Head | None, line: bytes) -> AuditRecord:
    """Return the record of a line, with or without its end, that continues the chain after `head`.

    Args:
        head: what it must follow; None: anything.
        line: as it is in the file.

    Raises:
        ChainFault: it does not, or is no record.
    """
    record = _parsed(line.removesuffix(b"\n"))
    if head is not None and record.seq != head.seq + 1:
        raise ChainFault(FaultKind.GAP, _gap(head.seq, record.seq))
    if head is not None and record.previous != head.hash:
        raise ChainFault(
            FaultKind.BROKEN_LINK,
            f"record {record.seq} does not follow the record before it, which was replaced, or this one was",
        )
    return record


def _gap(last: int, seq: int) -> str:
    if seq <= last:
        return f"record {seq} comes after record {last}"
    if seq == last + 2:
        return f"record {last + 1} is missing"
    return f"records {last + 1} to {seq - 1} are missing"


def _parsed(line: bytes) -> AuditRecord:
    try:
        said = json.loads(line)
        digest = said.pop("hash")
        body = rfc8785.dumps(said)
        is_canonical = rfc8785.dumps({**said, "hash": digest}) == line
        entry = AuditEntry(**said.pop("entry"))
        record = AuditRecord(said.pop("seq"), float(said.pop("at")), said.pop("previous"), digest, entry)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ChainFault(FaultKind.ALTERED, "the line is no record") from error
    if said or not is_canonical or hashlib.sha256(body).hexdigest() != digest:
        raise ChainFault(FaultKind.ALTERED, f"record {record.seq} is not what it was when it was written")
    return record


def _fields(entry: AuditEntry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in _FIELDS} | {"detail": entry.detail}


def _fitted(entry: AuditEntry) -> AuditEntry:
    """Return the entry with values that can be recorded, and no more than may be."""
    texts = {name: _json_value(str(getattr(entry, name))) for name in _FIELDS}
    fit = replace(entry, **texts, detail=_json_value(entry.detail))
    size = len(rfc8785.dumps(_fields(fit)))
    if size <= MAX_ENTRY_BYTES:
        return fit
    digest = hashlib.sha256(rfc8785.dumps(_json_value(fit.detail))).hexdigest()
    short = {name: text[:1000] for name, text in texts.items()}
    return replace(fit, **short, detail={"left_out_bytes": size, "left_out_sha256": digest})


def _json_value(value: object, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -_EXACT <= value <= _EXACT else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping | list | tuple) and depth >= _MAX_DEPTH:
        return f"a {type(value).__name__}, too deep to be recorded"
    if isinstance(value, Mapping):
        return {_text(str(key)): _json_value(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item, depth + 1) for item in value]
    return _text(str(value))


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
