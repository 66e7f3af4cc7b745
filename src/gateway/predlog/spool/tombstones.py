"""Who was erased, known by keyed digests alone: rows of theirs that come late are told from all others."""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import numpy as np
import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

KEEP_S: Final = 30 * 86_400.0
"""Files of a gateway remember an erasure for so long; spools hold nothing that is older."""

_SALT_BYTES: Final = 16
_DIGEST_BYTES: Final = 16
_BUCKETS: Final = 1 << 16


class Tombstones:
    """Erased subjects, and join keys of their rows. One thread.

    A subject's hash is not kept: only a digest of it under a random key, and its lowest 16 bits, by which
    most rows are told apart without computing a digest.

    Attributes:
        revision: grows with every change.
    """

    def __init__(self) -> None:
        self.revision = 0
        self._salt = secrets.token_bytes(_SALT_BYTES)
        self._subjects: dict[bytes, tuple[int, int]] = {}
        self._keys: dict[bytes, int] = {}
        self._buckets = np.zeros(_BUCKETS, np.bool_)

    def __len__(self) -> int:
        """Return how many subjects there are."""
        return len(self._subjects)

    @property
    def identity(self) -> frozenset[bytes]:
        """What is equal where the same subjects were erased at the same times, of one origin."""
        return frozenset(digest + at.to_bytes(8, "little") for digest, (at, _) in self._subjects.items())

    @property
    def latest_ns(self) -> int:
        """When the latest of them was erased; 0 without any."""
        return max((at for at, _ in self._subjects.values()), default=0)

    def add(self, subject_hashes: Iterable[int], at_ns: int) -> None:
        """Remember subjects as erased.

        Args:
            subject_hashes: of the log; 0 stands for nobody.
            at_ns: wall clock: their rows that were done by then are refused.
        """
        for subject in set(subject_hashes) - {0}:
            self._subjects[self._digest(subject.to_bytes(8, "little"))] = at_ns, subject % _BUCKETS
        self._changed()

    def add_keys(self, keys: Iterable[tuple[str, bytes]]) -> None:
        """Remember models and join keys of rows that were erased, as long as the latest erasure."""
        self._keys |= dict.fromkeys((self._key(*key) for key in keys), self.latest_ns)
        self._changed()

    def refused(
        self, subject_hashes: npt.NDArray[np.uint64], done_ns: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Tell which rows are of an erased subject and were done before its erasure."""
        found = np.zeros(len(subject_hashes), np.bool_)
        if not self._subjects:
            return found
        near = np.flatnonzero(self._buckets[subject_hashes % np.uint64(_BUCKETS)])
        distinct, places = np.unique(subject_hashes[near], return_inverse=True)
        erased = [self._subjects.get(self._digest(int(s).to_bytes(8, "little"))) for s in distinct.tolist()]
        until_ns = np.array([-1 if one is None else one[0] for one in erased], np.int64)
        found[near] = done_ns[near] <= until_ns[places]
        return found

    def refuses_key(self, model: str, key: bytes) -> bool:
        """Tell whether rows with this join key were erased."""
        return bool(self._keys) and self._key(model, key) in self._keys

    def forget(self, before_ns: int) -> None:
        """Forget erasures from before."""
        subjects = {digest: about for digest, about in self._subjects.items() if about[0] >= before_ns}
        keys = {digest: at_ns for digest, at_ns in self._keys.items() if at_ns >= before_ns}
        if len(subjects) != len(self._subjects) or len(keys) != len(self._keys):
            self._subjects, self._keys = subjects, keys
            self._changed()

    def to_bytes(self) -> bytes:
        """Return them as JSON."""
        return orjson.dumps(
            {
                "salt": self._salt.hex(),
                "subjects": [[digest.hex(), *about] for digest, about in self._subjects.items()],
                "keys": [[digest.hex(), at_ns] for digest, at_ns in self._keys.items()],
            }
        )

    def load(self, data: bytes) -> None:
        """Take what `to_bytes` gave in place of what is there.

        Raises:
            ValueError: it did not give that.
        """
        try:
            document = orjson.loads(data)
            salt = bytes.fromhex(document["salt"])
            subjects = {bytes.fromhex(d): (int(at), int(low)) for d, at, low in document["subjects"]}
            keys = {bytes.fromhex(digest): int(at) for digest, at in document["keys"]}
        except (ValueError, KeyError, TypeError) as exc:
            raise ValueError(f"no record of erasures: {exc}") from exc
        known = all(0 <= low < _BUCKETS for _, low in subjects.values())
        if not known or not 0 < len(salt) <= blake2b.MAX_KEY_SIZE:
            raise ValueError("no record of erasures: out of bounds")
        self._salt, self._subjects, self._keys = salt, subjects, keys
        self._changed()

    def _changed(self) -> None:
        self.revision += 1
        self._buckets[:] = False
        self._buckets[[low for _, low in self._subjects.values()]] = True

    def _digest(self, value: bytes) -> bytes:
        return blake2b(value, digest_size=_DIGEST_BYTES, key=self._salt).digest()

    def _key(self, model: str, key: bytes) -> bytes:
        return self._digest(b"%s\0%s" % (model.encode(), key))


def loaded(data: bytes) -> Tombstones:
    """Return what `Tombstones.to_bytes` gave.

    Raises:
        ValueError: it did not give that.
    """
    found = Tombstones()
    found.load(data)
    return found
