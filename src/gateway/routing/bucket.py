"""From a key to its bucket: the one formula that every replica and every language must agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xxhash import xxh3_64_intdigest

from gateway.core.rollout import PPM

if TYPE_CHECKING:
    from gateway.core.rollout import HashSpec

_LENGTH_BYTES: Final = 4


def salted(spec: HashSpec) -> bytes:
    """Return what is hashed before a key: the salt behind its length, a little-endian u32."""
    salt = spec.salt.encode()
    return len(salt).to_bytes(_LENGTH_BYTES, "little") + salt


def unit_of(salt: bytes, key: bytes) -> int:
    """Return the 64-bit hash of a key of any length, which tells it from other keys of the same salt.

    Args:
        salt: `salted` of the hash specification.
        key: raw; text as UTF-8.
    """
    return xxh3_64_intdigest(salt + len(key).to_bytes(_LENGTH_BYTES, "little") + key)


def bucket_of(unit: int) -> int:
    """Return the bucket of a key, from 0 up to but not including PPM; `unit` is uniform over 64 bits."""
    return (unit * PPM) >> 64
