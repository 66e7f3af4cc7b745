"""What of a request decides its arm: the first key source that is present, or the caller's own choice."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

from gateway.core.rollout import KeyKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.rollout import HeaderOverride, KeySource
    from gateway.core.types import InferRequest, ParameterValue

SUBJECT_CLAIM: Final = "sub"

_HEADER: Final = 0
_PARAMETER: Final = 1
_REQUEST_ID: Final = 2
_JWT: Final = 3
_CODES: Final = {
    KeyKind.HEADER: _HEADER,
    KeyKind.PARAMETER: _PARAMETER,
    KeyKind.REQUEST_ID: _REQUEST_ID,
    KeyKind.JWT: _JWT,
}


class KeyReader:
    """Finds the key of requests by a list of sources, in their order.

    A source counts as absent where its value is empty. Claims are those of the authenticated principal, never
    of a token that a request merely carries: `sub` is its identity, and there are no others yet.

    Args:
        sources: where to look.
    """

    __slots__ = ("_sources",)

    def __init__(self, sources: Sequence[KeySource]) -> None:
        self._sources = tuple([(_CODES[source.kind], source.name) for source in sources])

    def key(self, request: InferRequest) -> bytes | None:
        """Return the key, as UTF-8; None where no source has any.

        Integers are their decimal text and booleans `true` or `false`; a float is its shortest text. A text
        that is no Unicode (a header's bytes, taken one by one) is kept as it came.
        """
        for code, name in self._sources:
            if code == _HEADER:
                text = request.headers.get(name, "")
            elif code == _PARAMETER:
                value = request.parameters.get(name)
                text = "" if value is None else _text(value)
            elif code == _REQUEST_ID:
                text = request.request_id
            else:
                text = request.principal.identity if name == SUBJECT_CLAIM else ""
            if text:
                return text.encode("utf-8", "surrogatepass")
        return None


class Overrides:
    """Choices of arm by header.

    Args:
        overrides: in the order in which they apply.
        arms: the arms there are.

    Attributes:
        refused: requests whose choice was ignored: no such arm, not among those allowed, or the caller's
            principal lacks the scope.
    """

    __slots__ = ("_arms", "_overrides", "refused")

    def __init__(self, overrides: Sequence[HeaderOverride], arms: Sequence[str]) -> None:
        self.refused = 0
        self._arms = {name: index for index, name in enumerate(arms)}
        self._overrides = tuple(overrides)

    def chosen(self, request: InferRequest) -> int:
        """Return the place of the arm that the caller chose; -1 where it chose none that it may have."""
        asked = False
        for override in self._overrides:
            name = request.headers.get(override.header)
            if not name:
                continue
            asked = True
            allowed = not override.scope or override.scope in request.principal.scopes
            if allowed and name in override.arms and name in self._arms:
                return self._arms[name]
        if asked:
            self.refused += 1
        return -1


def random_units(seed: int | None = None) -> Callable[[], int]:
    """Return a source of units for requests without a key: random, other ones in each process."""
    random = Random(seed)  # noqa: S311 - spreads load, keeps no secret

    def unit() -> int:
        return random.getrandbits(64)

    return unit


def _text(value: ParameterValue) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)
