"""Reading the members of JSON objects with checks: objects, parameters, text, shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import simdjson

from gateway.core.errors import InvalidRequest
from gateway.protocol.limits import check_count, check_name
from gateway.protocol.parameters import check_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.types import ParameterValue
    from gateway.protocol.limits import DecodeContext


def members_of(value: object, what: str, context: DecodeContext) -> dict[str, object]:
    """Return the members of an object; nested values stay simdjson's.

    Raises:
        InvalidRequest: no object, or a key that comes twice, which parsers disagree about.
        PayloadTooLarge: more members than parameters are allowed.
    """
    if not isinstance(value, simdjson.Object):
        raise InvalidRequest(f"{what} for model '{context.model}' must be a JSON object")
    if len(value) > context.limits.max_parameters:
        check_count(f"members in {what}", len(value), context.limits.max_parameters, context)
    keys = list(value)
    # simdjson looks keys up as C strings: one that holds a zero would find another's value, or none.
    if "\0" in "".join(keys):
        raise InvalidRequest(f"{what} for model '{context.model}' has a member with a zero in its name")
    members: dict[str, object] = {key: value[key] for key in keys}
    if len(members) != len(value):
        raise InvalidRequest(f"{what} for model '{context.model}' has a member twice")
    return members


def parameters_of(value: object, what: str, context: DecodeContext) -> dict[str, ParameterValue]:
    """Return the parameters in the object `value`.

    Raises:
        InvalidRequest: no object, or a value that is no scalar.
        PayloadTooLarge: too many, or too long.
    """
    return scalars_of(members_of(value, f"'parameters' of {what}", context), context)


def scalars_of(members: Mapping[str, object], context: DecodeContext) -> dict[str, ParameterValue]:
    """Return members as parameters; raises as `parameters_of`."""
    return {check_name("a parameter's key", k, context): _scalar(k, v, context) for k, v in members.items()}


def _scalar(key: str, value: object, context: DecodeContext) -> ParameterValue:
    if isinstance(value, str):
        return check_text(key, value, context)
    if not isinstance(value, bool | int | float):
        msg = "must be a boolean, a number or a string"
        raise InvalidRequest(f"parameter '{key}' for model '{context.model}' {msg}")
    return value


def text_of(value: object, what: str, context: DecodeContext) -> str:
    """Return a name or id.

    Raises:
        InvalidRequest: no string.
        PayloadTooLarge: too long.
    """
    if not isinstance(value, str):
        raise InvalidRequest(f"{what} for model '{context.model}' must be a string")
    return check_name(what, value, context)


def shape_of(value: object, name: str, context: DecodeContext) -> list[int]:
    """Return the shape of input `name` as sent, negative axes included.

    Raises:
        InvalidRequest: no array of integers.
        PayloadTooLarge: too many axes; they are not even read.
    """
    where = f"the shape of input '{name}' for model '{context.model}'"
    if not isinstance(value, simdjson.Array):
        raise InvalidRequest(f"{where} must be an array of integers")
    if len(value) > context.limits.max_rank:
        check_count(f"axes in input '{name}'", len(value), context.limits.max_rank, context)
    shape: list[int] = []
    for size in value:
        if isinstance(size, bool) or not isinstance(size, int):
            raise InvalidRequest(f"{where} must be an array of integers")
        shape.append(size)
    return shape
