"""Begins calls together that came together, over a server that hands them over one by one.

However many calls wait in the C core, grpcio's asyncio server takes the next one only some turns of the event
loop after the last: each would be answered before the next is seen, and none would ever share a batch. A call
is therefore held until no other has come for some turns.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.clock import Clock

QUIET_TURNS: Final = 16
"""Turns of the loop without a call after which no more are waited for. grpcio needs about ten from taking a
call to handing it over; an empty turn takes microseconds."""
LONGEST_S: Final = 0.002
"""How long a call may be held while others keep coming. With 32 calls in flight on one core, groups of 5 to
10 form, and a request costs half the CPU time it costs alone."""
MOST_SKIPPED: Final = 63
"""Most calls begun at once after holding one brought no company."""


class Gathering:
    """Holds calls for each other, for `LONGEST_S` at most, and begins them in the order they came.

    Holding that brings nothing is tried ever more rarely, down to each 64th call: a client that sends its
    next request when it has the answer is hardly ever kept waiting. One event loop's; it owns nothing that
    needs an end, for what is held is begun some turns later.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: list[tuple[Callable[[], object], Callable[[], bool]]] = []
        self._quiet_turns = 0
        self._until_s = 0.0
        self._skip = 0
        self._skips = 0

    def add(self, begin: Callable[[], object], ended: Callable[[], bool]) -> None:
        """Begin a call now, or together with those that follow.

        Args:
            begin: hands the call to its method; must not raise.
            ended: whether it has been given up meanwhile; then it is not begun.
        """
        if self._skip:
            self._skip -= 1
            begin()
            return
        if not self._held:
            self._until_s = self._clock.now_s() + LONGEST_S
            asyncio.get_running_loop().call_soon(self._turn)
        self._held.append((begin, ended))
        self._quiet_turns = 0

    def _turn(self) -> None:
        self._quiet_turns += 1
        if self._quiet_turns < QUIET_TURNS and self._clock.now_s() < self._until_s:
            asyncio.get_running_loop().call_soon(self._turn)
            return
        held, self._held = self._held, []
        self._skips = 0 if len(held) > 1 else min(2 * self._skips + 1, MOST_SKIPPED)
        self._skip = self._skips
        for begin, ended in held:
            if not ended():
                begin()
