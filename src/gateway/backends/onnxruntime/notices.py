"""Tells the operator each sentence once, with a bounded memory of what was said."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Notices:
    """Passes on sentences that are new. May be used from any thread.

    Invariant: holds the `remembered` sentences said last, at most; one older than those is told again.

    Args:
        tell: takes each new sentence, on the thread that said it; None keeps everything quiet.
        remembered: sentences to remember; more than the models of one server have warnings.
    """

    def __init__(self, tell: Callable[[str], None] | None, remembered: int = 1024) -> None:
        self._tell = tell
        self._remembered = remembered
        self._said: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many sentences are remembered."""
        return len(self._said)

    def say(self, sentence: str) -> None:
        """Tell a sentence unless it was said lately."""
        if self._tell is not None and self._is_new(sentence):
            self._tell(sentence)

    def _is_new(self, sentence: str) -> bool:
        with self._lock:
            new = sentence not in self._said
            self._said[sentence] = None
            self._said.move_to_end(sentence)
            if len(self._said) > self._remembered:
                self._said.popitem(last=False)
        return new
