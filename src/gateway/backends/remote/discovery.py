"""Where a fleet's endpoints are: written down, behind a name, or in a file that is watched."""

from __future__ import annotations

import asyncio
import logging
import random as randomness
import socket
from typing import TYPE_CHECKING, Final

from watchfiles import awatch

from gateway.backends.remote.addresses import WrongAddresses, checked, parse_lines
from gateway.backends.remote.timing import pause, wait_set
from gateway.core.remote import Address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path
    from typing import TypeAlias

    from gateway.core.clock import Clock
    from gateway.core.remote import AddressSource, FleetOptions

    Resolve: TypeAlias = Callable[[Address], Awaitable[Sequence[Address]]]

JITTER_SHARE: Final = 0.1
"""Looks are this share sooner or later, so that gateways do not ask a name server all at once."""
FIRST_RETRY_S: Final = 1.0
"""Pause after the first failed look; doubled for each further, up to the interval."""
MAX_FILE_BYTES: Final = 1 << 20
_RETRY_WATCH_S: Final = 5.0

_log = logging.getLogger(__name__)


def address_source(options: FleetOptions, clock: Clock) -> AddressSource:
    """Return what says where the endpoints of a fleet are: `dns` or `file` if given, else `endpoints`."""
    if options.dns is not None:
        return DnsAddresses(options.dns, options.refresh_s, clock)
    if options.file is not None:
        return FileAddresses(options.file, options.refresh_s, clock)
    return StaticAddresses(options.endpoints)


async def resolve(name: Address) -> Sequence[Address]:
    """Return every IPv4 and IPv6 address of a name with its port; asked in a thread.

    Cancelling leaves the thread to finish unseen.

    Raises:
        OSError: the name has no address, or nobody could say.
        ValueError: it cannot be a name.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(name.host, name.port, type=socket.SOCK_STREAM)
    return [Address(str(sockaddr[0]), name.port) for *_, sockaddr in found]


class StaticAddresses:
    """Endpoints that never change."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = tuple(dict.fromkeys(addresses))

    async def watch(self) -> AsyncIterator[Sequence[Address]]:
        """Give them, once."""
        yield self._addresses


class _Changes:
    """The last good set, and what was last said about it in the log."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._last: frozenset[Address] | None = None
        self._trouble = ""

    def good(self, addresses: Sequence[Address]) -> bool:
        """Take note of a set; return whether it is another one."""
        if self._trouble:
            self._trouble = ""
            _log.info("endpoints of %s: readable again", self._what)
        changed = frozenset(addresses) != self._last
        self._last = frozenset(addresses)
        return changed

    def bad(self, error: Exception) -> None:
        """Take note that there is no set; said once until it is another reason or over."""
        trouble = str(error)
        if trouble != self._trouble:
            self._trouble = trouble
            kept = "there are none yet" if self._last is None else f"the last {len(self._last)} stay"
            _log.warning("endpoints of %s: %s; %s", self._what, trouble, kept)


class DnsAddresses:
    """Every address behind a name is an endpoint.

    An empty or failed answer keeps the last set: a name server that is away takes no endpoint away.

    Args:
        name: host and the port of every endpoint.
        interval_s: between looks, give or take a tenth; sooner after a failure.
        clock: time.
        resolve: asks for the addresses; raises OSError or ValueError.
        random: gives numbers in [0, 1).
    """

    def __init__(
        self,
        name: Address,
        interval_s: float,
        clock: Clock,
        *,
        resolve: Resolve = resolve,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self._name = name
        self._interval_s = interval_s
        self._clock = clock
        self._resolve = resolve
        self._random = random

    async def watch(self) -> AsyncIterator[Sequence[Address]]:
        """Give the set when it is first known and whenever it changes; never ends."""
        changes = _Changes(str(self._name))
        failures = 0
        while True:
            try:
                addresses = tuple(sorted(checked(await self._resolve(self._name))))
            except (OSError, ValueError) as error:
                failures += 1
                changes.bad(error)
            else:
                failures = 0
                if changes.good(addresses):
                    yield addresses
            await pause(self._clock, self._pause_s(failures))

    def _pause_s(self, failures: int) -> float:
        pause_s = self._interval_s
        if failures:
            pause_s = min(pause_s, FIRST_RETRY_S * 2.0 ** min(failures - 1, 16))
        return pause_s * (1 + JITTER_SHARE * (2 * self._random() - 1))


class FileAddresses:
    """Endpoints listed in a file, one `host:port` a line, `#` for comments.

    A change is noticed at once where inotify works and by the next look where it does not. A file that is
    missing, empty or wrong keeps the last set.

    Args:
        path: the file; its directory is watched, so that a rename or a moved link over it is seen.
        interval_s: between looks while nothing is noticed.
        clock: time.
    """

    def __init__(self, path: Path, interval_s: float, clock: Clock) -> None:
        self._path = path
        self._interval_s = interval_s
        self._clock = clock

    async def watch(self) -> AsyncIterator[Sequence[Address]]:
        """Give the set when it is first known and whenever it changes; never ends. Closing ends the watch."""
        noticed = asyncio.Event()
        changes = _Changes(str(self._path))
        watcher = asyncio.create_task(self._notice(noticed), name=f"watch {self._path.name}")
        try:
            while True:
                noticed.clear()
                try:
                    addresses = await asyncio.to_thread(_read, self._path)
                except (OSError, ValueError) as error:
                    changes.bad(error)
                else:
                    if changes.good(addresses):
                        yield addresses
                await wait_set(self._clock, noticed, self._clock.now_s() + self._interval_s)
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _notice(self, noticed: asyncio.Event) -> None:
        """Set the event at every change in the directory; starts again when that was away."""
        warned = False
        while True:
            try:
                async for _ in awatch(
                    self._path.parent, watch_filter=None, debounce=100, step=20, recursive=False
                ):
                    noticed.set()
            except OSError as error:
                if not warned and self._path.parent.is_dir():
                    warned = True
                    _log.warning(
                        "cannot watch %s, looking every %g s instead: %s",
                        self._path.parent,
                        self._interval_s,
                        error,
                    )
            await pause(self._clock, _RETRY_WATCH_S)


def _read(path: Path) -> tuple[Address, ...]:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise WrongAddresses(f"larger than {MAX_FILE_BYTES} bytes")
    return parse_lines(content.decode())
