"""Request and output parameters: the protocol's own, what they must hold, which names are reserved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core.errors import InvalidRequest, PayloadTooLarge, Unsupported
from gateway.core.types import NO_PARAMETERS, ParameterValue, RequestedOutput
from gateway.protocol.limits import check_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.protocol.limits import DecodeContext

SHARED_MEMORY_DISABLED: Final = (
    "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."
)
"""Triton's words, so that clients and scripts that look for them find them."""

EMPTY_FINAL_RESPONSE: Final = "triton_enable_empty_final_response"
FINAL_RESPONSE: Final = "triton_final_response"
BINARY_DATA_OUTPUT: Final = "binary_data_output"
_SHARED_MEMORY: Final = "shared_memory_region"
_RESERVED_PREFIX: Final = "triton_"
_UINT64_MAX: Final = (1 << 64) - 1


class RequestParameters(NamedTuple):
    """A request's parameters, sorted.

    Attributes:
        priority: 0 when not given.
        timeout_us: time allowed, microseconds; 0 when not given.
        binary_data_output: the binary default of outputs that the request does not list (HTTP only).
        others: everything else, sequence parameters included.
    """

    priority: int
    timeout_us: int
    binary_data_output: bool
    others: Mapping[str, ParameterValue]


NO_REQUEST_PARAMETERS: Final = RequestParameters(0, 0, False, NO_PARAMETERS)


def sort_parameters(values: dict[str, ParameterValue], context: DecodeContext) -> RequestParameters:
    """Take the protocol's own parameters out of `values`, which it changes, and check the rest.

    Raises:
        InvalidRequest: a value of the wrong type or range, or a reserved name.
    """
    if not values:
        return NO_REQUEST_PARAMETERS
    priority = _unsigned("priority", values.pop("priority", 0), context)
    timeout_us = _unsigned("timeout", values.pop("timeout", 0), context)
    binary = _boolean(BINARY_DATA_OUTPUT, values.pop(BINARY_DATA_OUTPUT, False), context)
    for key, value in values.items():
        _check_other(key, value, context)
    return RequestParameters(priority, timeout_us, binary, values or NO_PARAMETERS)


def earlier_deadline(deadline_s: float | None, arrived_s: float, timeout_us: int) -> float | None:
    """Return the earlier of the transport's deadline and the `timeout` parameter's; 0 us is none."""
    if not timeout_us:
        return deadline_s
    asked_s = arrived_s + timeout_us / 1e6
    return asked_s if deadline_s is None else min(deadline_s, asked_s)


def requested_output(
    name: str, values: Mapping[str, ParameterValue], context: DecodeContext
) -> RequestedOutput:
    """Build a requested output from its parameters.

    Raises:
        InvalidRequest: a classification that is no positive integer, or a `binary_data` that is no boolean.
        Unsupported: shared memory.
    """
    if not name:
        raise InvalidRequest(f"request for model '{context.model}' asks for an output without a name")
    check_name("an output's name", name, context)
    if not values:
        return RequestedOutput(name)
    refuse_shared_memory(values)
    _boolean("binary_data", values.get("binary_data", False), context)
    classes = values.get("classification")
    if classes is None:
        return RequestedOutput(name, 0, values)
    if isinstance(classes, bool) or not isinstance(classes, int) or not 0 < classes <= _UINT64_MAX:
        msg = (
            f"parameter 'classification' of output '{name}' for model '{context.model}' must be a positive "
            f"integer, got {_shown(classes)}"
        )
        raise InvalidRequest(msg)
    return RequestedOutput(name, classes, values)


def refuse_shared_memory(values: Mapping[str, ParameterValue]) -> None:
    """Refuse an input or output that asks for shared memory.

    Raises:
        Unsupported: with the message of a Triton server that has it switched off.
    """
    if _SHARED_MEMORY in values:
        raise Unsupported(SHARED_MEMORY_DISABLED)


def add_repeating(key: list[object], parameters: Mapping[str, ParameterValue]) -> bool:
    """Add the parameters of a response to the key of its head; False if they do not repeat.

    Only texts and booleans do: numbers of different types may be equal, and are not written alike.
    """
    for name, value in parameters.items():
        if not isinstance(value, (str, bool)):
            return False
        key += (name, value)
    return True


def check_unique(what: str, names: Sequence[str], context: DecodeContext) -> None:
    """Refuse a name that comes twice; `what` is `input` or `output`.

    Raises:
        InvalidRequest: naming the first that does.
    """
    if len(set(names)) == len(names):
        return
    twice = next(name for i, name in enumerate(names) if name in names[:i])
    raise InvalidRequest(f"{what} '{twice}' already exists in request for model '{context.model}'")


def check_text(key: str, value: str, context: DecodeContext) -> str:
    """Return a text parameter if it is short enough.

    Raises:
        PayloadTooLarge: it is not.
    """
    most = context.limits.max_parameter_bytes
    if len(value) * 4 > most and len(value.encode()) > most:
        raise PayloadTooLarge(f"parameter '{key}' for model '{context.model}' is longer than {most} bytes")
    return value


def _unsigned(key: str, value: ParameterValue, context: DecodeContext) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _UINT64_MAX:
        raise _wrong_type(key, value, "an integer of 0 or more", context)
    return value


def _boolean(key: str, value: ParameterValue, context: DecodeContext) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(key, value, "a boolean", context)
    return value


def _check_other(key: str, value: ParameterValue, context: DecodeContext) -> None:
    if key == "sequence_id":
        if isinstance(value, bool | float):
            raise _wrong_type(key, value, "an integer or a string", context)
    elif key in {"sequence_start", "sequence_end"}:
        _boolean(key, value, context)
    elif key.startswith(_RESERVED_PREFIX):
        if key != EMPTY_FINAL_RESPONSE:
            msg = (
                f"parameter '{key}' for model '{context.model}': keys starting with '{_RESERVED_PREFIX}' are "
                f"reserved, only '{EMPTY_FINAL_RESPONSE}' is allowed"
            )
            raise InvalidRequest(msg)
        _boolean(key, value, context)


def _wrong_type(key: str, value: object, expected: str, context: DecodeContext) -> InvalidRequest:
    return InvalidRequest(
        f"parameter '{key}' for model '{context.model}' must be {expected}, got {_shown(value)}"
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
