"""Says what a name that is not there may have been meant to be."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

from gateway.core.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Collection

_MOST_LISTED: Final = 20
_MOST_CHARACTERS: Final = 100


def unknown(kind: str, name: str, known: Collection[str]) -> NotFound:
    """Return the error for a name that nothing has, with those that are close, or all when they are few.

    Args:
        kind: what it names, `model`.
        name: as asked for.
        known: the names there are.
    """
    shown = name if len(name) <= _MOST_CHARACTERS else f"{name[:_MOST_CHARACTERS]}..."
    return NotFound(f"no {kind} '{shown}'; {_instead(kind, name[:_MOST_CHARACTERS], known)}")


def _instead(kind: str, name: str, known: Collection[str]) -> str:
    if not known:
        return f"there is no {kind} here"
    ordered = sorted(known)
    if close := difflib.get_close_matches(name, ordered, n=3):
        return f"did you mean {' or '.join(map(repr, close))}?"
    more = len(ordered) - _MOST_LISTED
    listed = ", ".join(ordered[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
    return f"there {'is' if len(ordered) == 1 else 'are'}: {listed}"
