"""Leaves the processor to a run while more is asked than can be answered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.core.interfaces import LoadedModel

MOST_S: Final = 0.003
"""How long the loop waits at most: its timers, and other models' requests, come so much later."""


class GivingWay:
    """Holds the event loop up after refusals, for a model whose runs take the processor that the loop needs.

    Each request that comes meanwhile would wake the loop, interrupt the run and take the run's data out of
    the processor's caches, only to be refused in code that the run took out of them. Together after a few
    milliseconds, or when the run has ended and room is made, the same refusals cost a fraction.
    """

    __slots__ = ("_model", "_soon")

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._soon = False

    def refused(self) -> None:
        """Take note that a request was refused because of those that wait while a run is under way."""
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._after_this_turn)

    def _after_this_turn(self) -> None:
        """Let refusals be written first: what writes them was asked for after this."""
        asyncio.get_running_loop().call_soon(self._give_way)

    def _give_way(self) -> None:
        self._soon = False
        self._model.let_run(MOST_S)
