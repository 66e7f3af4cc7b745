"""Answers that were computed, for as long as the rows that they are made of do not change."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

MOST: Final = 4096
"""Answers that are remembered; the one that was asked for longest ago makes way."""

_T = TypeVar("_T")


class Remembered:
    """Answers by question, each with what it depends on.

    Attributes:
        computed: how many had to be computed.
    """

    def __init__(self) -> None:
        self.computed = 0
        self._held: OrderedDict[Hashable, tuple[Hashable, Any]] = OrderedDict()

    def get(self, question: Hashable, depends: Hashable, compute: Callable[[], _T]) -> _T:
        """Return the answer, computed anew if what it depends on is not what it was."""
        held = self._held.pop(question, None)
        if held is None or held[0] != depends:
            held = (depends, compute())
            self.computed += 1
        self._held[question] = held
        while len(self._held) > MOST:
            self._held.popitem(last=False)
        answer: _T = held[1]
        return answer
