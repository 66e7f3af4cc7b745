"""Garbage collection of a cache directory that other processes use at the same time. Blocking.

A crash at any point leaves nothing worse than work for the next time: what goes is first moved to the trash.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.registry.cache.faults import is_full
from gateway.registry.cache.layout import IndexEntry, Layout, read_index, write_atomically
from gateway.registry.cache.locks import FileLock
from gateway.registry.cache.manifest import decode, is_sha256
from gateway.registry.cache.notes import parsed, read_note
from gateway.registry.cache.retention import Stored, to_remove

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from gateway.registry.cache.options import CacheOptions

_BROKEN_AGE_S: Final = 3600.0
"""What is being written has long been written then."""
_MOST_KEYS: Final = 16
"""So many fetch keys may lead to one artifact: a revision that changes for nothing makes ever more."""


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What a garbage collection did.

    Attributes:
        removed: content digest -> `age`, `count`, `bytes` or `unknown` (nothing leads to it).
        freed_bytes: of the removed artifacts.
        kept: how many artifacts are left.
        kept_bytes: of those.
        pinned: how many of those somebody uses now.
        leftovers: fetches given up that were removed.
    """

    removed: Mapping[str, str]
    freed_bytes: int
    kept: int
    kept_bytes: int
    pinned: int
    leftovers: int


def collect(layout: Layout, options: CacheOptions, owner: str, keep: Collection[str]) -> CollectReport:
    """Remove what `options` no longer allow.

    Args:
        layout: the directory.
        options: limits.
        owner: tells this cache's `keep` from those of others.
        keep: content digests that must stay.

    Raises:
        OSError: the directory cannot be read or written.
    """
    layout.prepare()
    return _Collection(layout, options).run(owner, keep)


class _Collection:
    """One garbage collection."""

    def __init__(self, layout: Layout, options: CacheOptions) -> None:
        self._layout = layout
        self._options = options
        self._now_s = options.wall_s()

    def run(self, owner: str, keep: Collection[str]) -> CollectReport:
        self._layout.empty_trash()
        note = self._layout.keeps / f"{owner}.json"
        noted = self._note(note, keep)
        wanted = self._wanted(keep)
        entries = dict(self._entries())
        stored = {one.digest: one for one in self._stored(entries)}
        planned = to_remove(list(stored.values()), wanted, self._options, self._now_s)
        removed = {digest: why for digest, why in planned.items() if self._remove(stored[digest], entries)}
        self._trim_indexes(entries, stored.keys() - removed.keys())
        leftovers = sum(self._remove_leftover(path) for path in list(self._layout.fetches.iterdir()))
        self._remove_idle_locks()
        if not noted:
            write_atomically(note, _encoded(keep), durable=False)
        left = [one for digest, one in stored.items() if digest not in removed]
        return CollectReport(
            removed=removed,
            freed_bytes=sum(stored[digest].size for digest in removed),
            kept=len(left),
            kept_bytes=sum(one.size for one in left),
            pinned=sum(one.pinned for one in left),
            leftovers=leftovers,
        )

    def _note(self, path: Path, keep: Collection[str]) -> bool:
        """Say what this gateway wants kept; False when the disk is too full for that: first make room."""
        try:
            write_atomically(path, _encoded(keep), durable=False)
        except OSError as error:
            if not is_full(error):
                raise
            return False
        return True

    def _wanted(self, keep: Collection[str]) -> frozenset[str]:
        """Return what any gateway wants kept."""
        wanted = set(keep)
        for path in list(self._layout.keeps.iterdir()):
            if self._older(path, max(self._options.leftover_age_s, _BROKEN_AGE_S)):
                path.unlink(missing_ok=True)
            else:
                wanted.update(_digests(path))
        return frozenset(wanted)

    def _entries(self) -> Iterator[tuple[Path, IndexEntry]]:
        """Give the index entries; what is left of one that was being written long ago is removed."""
        for path in list(self._layout.indexes.iterdir()):
            if (entry := read_index(path)) is not None:
                yield path, entry
            elif self._older(path, _BROKEN_AGE_S):
                path.unlink(missing_ok=True)

    def _stored(self, entries: Mapping[Path, IndexEntry]) -> Iterator[Stored]:
        models: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for entry in entries.values():
            models[entry.digest].add((entry.registry, entry.model))
        for path in list(self._layout.artifacts.iterdir()):
            if is_sha256(digest := path.name):
                with suppress(FileNotFoundError):
                    yield self._one(digest, frozenset(models.get(digest, ())))

    def _one(self, digest: str, models: frozenset[tuple[str, str]]) -> Stored:
        path, artifact = self._layout.pin_lock(digest), self._layout.artifact(digest)
        used_s = _modified_s(path) or _modified_s(artifact)
        with FileLock(path) as lock:
            pinned = not lock.try_exclusive()
            if pinned:
                # So that it counts as used until now, should its user be killed.
                with suppress(FileNotFoundError):
                    os.utime(path, (self._now_s, self._now_s))
            else:
                lock.touch(lambda: used_s)
        return Stored(digest, _size(artifact), used_s, models, pinned)

    def _remove(self, one: Stored, entries: Mapping[Path, IndexEntry]) -> bool:
        """Remove an artifact unless somebody has come to use it since it was looked at."""
        lock_path = self._layout.pin_lock(one.digest)
        with FileLock(lock_path) as lock:
            if not lock.try_exclusive() or _modified_s(lock_path) > one.used_s:
                return False
            for path, entry in entries.items():
                if entry.digest == one.digest:
                    path.unlink(missing_ok=True)
            self._layout.discard(self._layout.artifact(one.digest))
            lock.delete()
        return True

    def _trim_indexes(self, entries: Mapping[Path, IndexEntry], left: Collection[str]) -> None:
        """Remove index entries that lead nowhere, and the oldest of too many that lead to one artifact."""
        by_digest: dict[str, list[Path]] = defaultdict(list)
        for path, entry in sorted(entries.items(), key=lambda item: item[1].fetched_s, reverse=True):
            by_digest[entry.digest].append(path)
        for digest, paths in by_digest.items():
            for path in paths[_MOST_KEYS:] if digest in left else paths:
                # One that is young may belong to an artifact that is just being published.
                if self._older(path, self._options.grace_s):
                    path.unlink(missing_ok=True)

    def _remove_leftover(self, path: Path) -> bool:
        """Remove what is left of a fetch that nobody has gone on with for long."""
        if not self._older(path, self._options.leftover_age_s):
            return False
        with FileLock(self._layout.fetch_lock(path.name)) as lock:
            if not lock.try_exclusive() or not self._older(path, self._options.leftover_age_s):
                return False
            self._layout.discard(path)
            lock.delete()
        return True

    def _remove_idle_locks(self) -> None:
        """Remove locks of what is no longer there."""
        for path in list(self._layout.locks.iterdir()):
            place = self._layout.fetches if path.suffix == ".fetch" else self._layout.artifacts
            if (place / path.stem).exists() or not self._older(path, self._options.grace_s):
                continue
            with FileLock(path) as lock:
                if lock.try_exclusive(create=False) and not (place / path.stem).exists():
                    lock.delete()

    def _older(self, path: Path, age_s: float) -> bool:
        """Return whether neither `path` nor what lies directly in it was written within `age_s`."""
        newest_s = _modified_s(path)
        with suppress(OSError):
            newest_s = max([newest_s, *(_modified_s(inside) for inside in path.iterdir())])
        return 0 < newest_s < self._now_s - age_s


def _modified_s(path: Path) -> float:
    try:
        return path.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return 0.0


def _size(artifact: Path) -> int:
    try:
        return decode(read_note(artifact / "manifest.json")).total_bytes
    except (OSError, ValueError):
        return sum(_modified_size(here, name) for here, _, names in os.walk(artifact) for name in names)


def _modified_size(here: str, name: str) -> int:
    with suppress(OSError):
        return os.lstat(os.path.join(here, name)).st_size  # noqa: PTH118 - os.walk gives text
    return 0


def _encoded(keep: Collection[str]) -> bytes:
    return json.dumps(sorted(keep)).encode()


def _digests(path: Path) -> frozenset[str]:
    """Return the digests that a gateway wants kept; none when its note is damaged."""
    try:
        document = parsed(read_note(path))
    except OSError:
        return frozenset()
    return frozenset(filter(is_sha256, document)) if isinstance(document, list) else frozenset()
