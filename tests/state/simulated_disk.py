"""A disk in memory that forgets what was not flushed, and fails or dies at the nth thing done to it."""

from __future__ import annotations

import enum
import errno
import random
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PAGE_BYTES = 512
"""What a file is written back in."""


class Killed(BaseException):
    """The process is dead: nothing it does has an effect any more."""


class Fault(enum.Enum):
    """What happens at the step chosen."""

    KILL_BEFORE = "killed before it"
    KILL_WITHIN = "killed in the middle of a write"
    KILL_AFTER = "killed after it"
    SHORT_WRITE = "fewer bytes are written"
    FULL = "no space, after some bytes"
    BROKEN = "input/output error"
    READ_ONLY = "read-only from here on"
    DEAD = "input/output errors from here on"
    PASSING = "input/output errors at this and the next three steps"


@dataclass
class _Inode:
    """A file: what a reader sees, and what is on the platter."""

    cached: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    dirty: set[int] = field(default_factory=set)
    resized: bool = False


class SimulatedDisk:
    """A file system as POSIX allows it to be; a `state.disk.Disk`.

    A file's pages and its size reach the platter in any order until it is flushed; names do in the order of
    their changes. A failed flush of a file gives its pages up: readers still see them, and no later flush
    writes them (ext4, XFS).
    """

    def __init__(self, seed: str = "") -> None:
        self.steps: list[str] = []
        self._random = random.Random(seed)
        self._names: dict[Path, _Inode] = {}
        self._durable_names: dict[Path, _Inode] = {}
        self._changes: list[dict[Path, _Inode | None]] = []
        self._open: dict[int, _Inode] = {}
        self._at: int | None = None
        self._fault = Fault.KILL_BEFORE
        self._lasting = 0
        self._lasts_until = 0
        self._dead = False

    def fail(self, step: int, fault: Fault) -> None:
        """Let something happen at a step from now, the next being 1."""
        self._at = len(self.steps) + step
        self._fault = fault

    def heal(self) -> None:
        """Let nothing happen any more."""
        self._at = None
        self._lasting = 0

    def crash(self, *, power_lost: bool) -> None:
        """End the process; with the power, also what was not flushed is gone, or part of it."""
        self.heal()
        self._dead = False
        self._open.clear()
        if not power_lost:
            return
        for change in self._changes[: self._random.randint(0, len(self._changes))]:
            _apply(change, self._durable_names)
        self._names = dict(self._durable_names)
        self._changes.clear()
        for inode in self._names.values():
            self._lose_unflushed(inode)

    def _lose_unflushed(self, inode: _Inode) -> None:
        self._write_back(inode, {page for page in inode.dirty if self._random.random() < 0.5})
        if inode.resized and self._random.random() < 0.5:
            _resize(inode.durable, len(inode.cached))
        inode.cached[:] = inode.durable
        inode.dirty.clear()
        inode.resized = False

    def _write_back(self, inode: _Inode, pages: set[int]) -> None:
        for page in sorted(pages):
            content = inode.cached[page * PAGE_BYTES : (page + 1) * PAGE_BYTES]
            if inode.resized and len(inode.durable) < page * PAGE_BYTES + len(content):
                # Blocks beyond the old end are only reachable once the new size is written.
                if self._random.random() < 0.5:
                    continue
                _resize(inode.durable, page * PAGE_BYTES + len(content))
            inode.durable[page * PAGE_BYTES : page * PAGE_BYTES + len(content)] = content

    # Steps.

    def _step(self, what: str) -> Fault | None:
        if self._dead:
            raise Killed
        self.steps.append(what)
        if self._lasting and len(self.steps) <= self._lasts_until:
            raise OSError(self._lasting, "as before")
        if self._at is None or len(self.steps) != self._at:
            return None
        if self._fault is Fault.KILL_BEFORE:
            self._kill()
        if self._fault in {Fault.READ_ONLY, Fault.DEAD, Fault.PASSING}:
            self._lasts_until = self._at + 3 if self._fault is Fault.PASSING else sys.maxsize
            self._lasting = errno.EROFS if self._fault is Fault.READ_ONLY else errno.EIO
            raise OSError(self._lasting, "from here on")
        return self._fault

    def _kill(self) -> None:
        self._dead = True
        raise Killed

    def _after(self, fault: Fault | None) -> None:
        if fault in {Fault.KILL_AFTER, Fault.KILL_WITHIN}:
            self._kill()

    @staticmethod
    def _refuse(fault: Fault | None) -> None:
        if fault is Fault.FULL:
            raise OSError(errno.ENOSPC, "full")
        if fault is Fault.BROKEN:
            raise OSError(errno.EIO, "broken")

    # The disk.

    def make_directory(self, path: Path) -> None:
        pass

    def names(self, directory: Path) -> list[str]:
        return [path.name for path in self._names if path.parent == directory]

    def read(self, path: Path) -> bytes:
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "no such file")
        return bytes(self._names[path].cached)

    def open(self, path: Path, *, create: bool = False) -> int:
        fault = self._step(f"open {path.name}")
        self._refuse(fault)
        if path not in self._names:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "no such file")
            self._rename_to({path: _Inode()})
        descriptor = len(self.steps)
        self._open[descriptor] = self._names[path]
        self._after(fault)
        return descriptor

    def write_at(self, descriptor: int, data: memoryview, offset: int) -> int:
        fault = self._step(f"write {len(data)} bytes at {offset}")
        inode = self._open[descriptor]
        partial = {Fault.SHORT_WRITE, Fault.FULL, Fault.KILL_WITHIN}
        size = self._random.randint(1, len(data)) if fault in partial else len(data)
        if fault is Fault.BROKEN:
            size = 0
        end = offset + size
        if end > len(inode.cached):
            _resize(inode.cached, end)
            inode.resized = True
        inode.cached[offset:end] = data[:size]
        inode.dirty.update(range(offset // PAGE_BYTES, (end + PAGE_BYTES - 1) // PAGE_BYTES))
        self._refuse(fault)
        self._after(fault)
        return size

    def truncate(self, descriptor: int, size: int) -> None:
        fault = self._step(f"truncate to {size}")
        self._refuse(fault)
        inode = self._open[descriptor]
        _resize(inode.cached, size)
        inode.resized = True
        inode.dirty = {page for page in inode.dirty if page * PAGE_BYTES < size}
        self._after(fault)

    def sync(self, descriptor: int) -> None:
        inode = self._open[descriptor]
        try:
            fault = self._step("sync")
            self._refuse(fault)
        except OSError:
            seen = bytes(inode.cached)
            self._lose_unflushed(inode)
            inode.cached[:] = seen
            raise
        inode.durable[:] = _flushed(inode)
        inode.dirty.clear()
        inode.resized = False
        self._after(fault)

    def sync_directory(self, path: Path) -> None:
        fault = self._step("sync directory")
        self._refuse(fault)
        for change in self._changes:
            _apply(change, self._durable_names)
        self._changes.clear()
        self._after(fault)

    def rename(self, old: Path, new: Path) -> None:
        fault = self._step(f"rename {old.name} to {new.name}")
        self._refuse(fault)
        self._rename_to({old: None, new: self._names[old]})
        self._after(fault)

    def remove(self, path: Path) -> None:
        fault = self._step(f"remove {path.name}")
        self._refuse(fault)
        self._rename_to({path: None})
        self._after(fault)

    def close(self, descriptor: int) -> None:
        if self._dead:
            raise Killed
        self._open.pop(descriptor, None)

    def _rename_to(self, change: dict[Path, _Inode | None]) -> None:
        _apply(change, self._names)
        self._changes.append(change)


def _apply(change: dict[Path, _Inode | None], names: dict[Path, _Inode]) -> None:
    for path, inode in change.items():
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode


def _resize(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(size - len(content)))


def _flushed(inode: _Inode) -> bytes:
    """Return what a flush leaves on the platter: dirty pages, and what was there before elsewhere."""
    content = bytearray(inode.durable)
    _resize(content, len(inode.cached))
    for page in inode.dirty:
        at = page * PAGE_BYTES
        content[at : at + PAGE_BYTES] = inode.cached[at : at + PAGE_BYTES]
    return bytes(content[: len(inode.cached)])
