"""JSON answers that stand whatever text a registry gave: lineage is written by anybody."""

from __future__ import annotations

import math
from typing import Final

import orjson

from gateway.core.calls import HttpResponse

_MAX_DEPTH: Final = 32
_TOO_DEEP: Final = "..."
_MAX_INTEGER: Final = 1 << 63


def json_answer(document: object, status: int = 200) -> HttpResponse:
    """Return a response with `document` as indented JSON; what JSON cannot say is mended, not refused."""
    try:
        body = orjson.dumps(document, option=orjson.OPT_INDENT_2)
    except TypeError:
        body = orjson.dumps(_mended(document, 0), option=orjson.OPT_INDENT_2)
    return HttpResponse(status, (body,))


def _mended(value: object, depth: int) -> object:
    """Return `value` without halves of surrogate pairs, integers beyond 64 bits, and endless nesting."""
    if depth > _MAX_DEPTH:
        return _TOO_DEEP
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {str(_mended(str(key), depth)): _mended(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mended(item, depth + 1) for item in value]
    if value is None:
        return None
    if isinstance(value, int):
        return value if -_MAX_INTEGER <= value < _MAX_INTEGER else str(value)[:_MAX_DEPTH]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)
