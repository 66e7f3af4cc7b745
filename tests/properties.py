"""How many examples a property is tried with: a part of them in `make test`, many more in `make soak`."""

from __future__ import annotations

from typing import Final

DEFAULT_EXAMPLES: Final = 100
"""Of a property that says nothing."""

_share = 1.0


def try_share(share: float) -> None:
    """Have what is imported from now on try this share of its examples."""
    global _share  # noqa: PLW0603 - set once, before tests are collected
    _share = share


def examples(count: int) -> int:
    """Return how many of so many examples to try."""
    return max(1, round(count * _share))
