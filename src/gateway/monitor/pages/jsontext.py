"""JSON of the view's values: NaN is null, an enum its value, a named tuple an object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def json_bytes(value: object) -> bytes:
    """Return `value` as JSON; text that is not UTF-8 has its halves replaced."""
    return orjson.dumps(value, default=_plain, option=_OPTIONS)


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return value._asdict()
    for plain, kinds in _PLAIN:
        if isinstance(value, kinds):
            return plain(value)
    if hasattr(value, "items"):
        return dict(value.items())
    if callable(value):
        return getattr(value, "__name__", "")
    return str(value)


_PLAIN: Final[tuple[tuple[Callable[[Any], Any], Any], ...]] = (
    (lambda value: value.encode(errors="replace").decode(), str),
    (lambda value: value.decode(errors="replace"), bytes),
    (list, (tuple, set, frozenset)),
)
