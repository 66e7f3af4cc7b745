"""What identifies a request in the log: its join key and hash, its arm, its subject."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from xxhash import xxh3_64_intdigest

from gateway.predlog.rows import NO_ARM, SHADOW_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.types import InferRequest

SALT: Final = b"prediction-log"
"""Of the hash that sampling follows: another than those of splits, so that an arm is no sample of keys."""

MAX_KEY_BYTES: Final = 1024
"""A longer key is logged as none: its row is counted but cannot be joined."""

SHADOW_FLOW: Final = "gateway/shadow"
"""`InferRequest.flow_key` of the copies of mirrored requests."""

_LENGTH_BYTES: Final = 4
_SALTED: Final = len(SALT).to_bytes(_LENGTH_BYTES, "little") + SALT
_PREFIXES: Final = [_SALTED + length.to_bytes(_LENGTH_BYTES, "little") for length in range(256)]


class Source(NamedTuple):
    """Where a text of a request is.

    Attributes:
        kind: `request_id`, `header` or `parameter`.
        name: of the header (lower case) or the parameter.
    """

    kind: str
    name: str = ""

    def text(self, request: InferRequest) -> str:
        """Return the text; empty where the request has none."""
        if self.kind == "request_id":
            return request.request_id
        if self.kind == "header":
            return request.headers.get(self.name, "")
        value = request.parameters.get(self.name, "")
        if isinstance(value, bool):
            return "true" if value else "false"
        return str(value)

    def value(self, request: InferRequest) -> bytes:
        """Return the text as UTF-8; empty where the request has none."""
        return self.text(request).encode("utf-8", "surrogatepass")

    def values(self, requests: Sequence[InferRequest]) -> list[bytes]:
        """Return `value` of many requests."""
        if self.kind == "request_id":
            return [request.request_id.encode("utf-8", "surrogatepass") for request in requests]
        return [self.value(request) for request in requests]


REQUEST_ID: Final = Source("request_id")


def key_hash(key: bytes) -> int:
    """Return the 64-bit hash of a join key: xxh3_64 of the salt and the key, each behind its length."""
    return xxh3_64_intdigest(_SALTED + len(key).to_bytes(_LENGTH_BYTES, "little") + key)


def key_hashes(keys: Sequence[bytes], random: Callable[[], int]) -> list[int]:
    """Return `key_hash` of many keys; of an empty one a random number."""
    hashed, prefixes, known = xxh3_64_intdigest, _PREFIXES, len(_PREFIXES)
    return [
        (hashed(prefixes[len(key)] + key) if len(key) < known else key_hash(key)) if key else random()
        for key in keys
    ]


def subject_hash(secret: bytes, subject: bytes) -> int:
    """Return the keyed hash of whom rows are about, never 0: blake2b, 8 bytes, little endian.

    Args:
        secret: at most 64 bytes; whoever has it can tell a known person's rows.
        subject: as the request brought it.
    """
    return int.from_bytes(blake2b(subject, digest_size=8, key=secret).digest(), "little") or 1


def arm_of(request: InferRequest) -> str:
    """Return the arm that a request was assigned to, whoever answers it; NO_ARM without a route."""
    assigned = request.assigned
    if assigned is not None:
        return assigned.arm
    return NO_ARM if request.flow_key != SHADOW_FLOW else SHADOW_PREFIX + request.model_version


def arms_of(requests: Sequence[InferRequest]) -> list[str]:
    """Return `arm_of` of many requests."""
    return [
        NO_ARM if request.assigned is None and request.flow_key != SHADOW_FLOW else arm_of(request)
        for request in requests
    ]
