"""Bounds on what a client may send, and the checks that hold before memory is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core.errors import InvalidRequest, PayloadTooLarge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.types import Datatype


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolLimits:
    """Bounds of the codecs. The defaults are safe for a public endpoint.

    Attributes:
        max_body_bytes: HTTP body, or gRPC message, after decompression. Triton's default is 64 MiB too.
            Binary tensors take no more than their own size; JSON made of nothing but short numbers takes
            up to twenty times its size while it is decoded. Typed contents may not grow beyond it either.
        max_json_depth: nesting of arrays and objects, data included. Triton's value.
        max_tensor_elements: elements of one tensor.
        max_bytes_elements: elements of one BYTES tensor: each is an object of some fifty bytes, however
            short its text is.
        max_rank: axes of one tensor; NumPy allows 64.
        max_inputs: inputs of one request.
        max_outputs: outputs asked for in one request.
        max_parameters: parameters of one request, input or output; also bounds unknown JSON members.
        max_name_bytes: UTF-8 bytes of a name, a request id, a version or a parameter's key.
        max_parameter_bytes: UTF-8 bytes of one parameter's text.
    """

    max_body_bytes: int = 64 << 20
    max_json_depth: int = 100
    max_tensor_elements: int = 1 << 27
    max_bytes_elements: int = 1 << 20
    max_rank: int = 32
    max_inputs: int = 256
    max_outputs: int = 256
    max_parameters: int = 128
    max_name_bytes: int = 1024
    max_parameter_bytes: int = 64 << 10


DEFAULT_LIMITS: Final = ProtocolLimits()


class DecodeContext(NamedTuple):
    """What every check of one request needs.

    Attributes:
        model: the model's name, for messages.
        limits: bounds.
        datatypes: what the model takes by input name, to refuse another datatype before its data is read;
            None leaves that to whoever checks the request against the signature.
    """

    model: str
    limits: ProtocolLimits
    datatypes: Mapping[str, Datatype] | None = None


def check_body_size(size: int, limits: ProtocolLimits) -> None:
    """Refuse a body of `size` bytes beyond the limit.

    Raises:
        PayloadTooLarge: naming both sizes.
    """
    if size > limits.max_body_bytes:
        msg = f"request of {size} bytes exceeds the maximum allowed size of {limits.max_body_bytes} bytes"
        raise PayloadTooLarge(msg)


def check_count(what: str, got: int, most: int, context: DecodeContext) -> None:
    """Refuse more than `most` of something; `what` is a plural noun.

    Raises:
        PayloadTooLarge: naming what was counted.
    """
    if got > most:
        raise PayloadTooLarge(
            f"request for model '{context.model}' has {got} {what}, at most {most} are allowed"
        )


def check_name(what: str, name: str, context: DecodeContext) -> str:
    """Return `name` if it is short enough; `what` says whose name it is.

    Raises:
        PayloadTooLarge: without echoing the name, which may be megabytes.
    """
    # A character takes at most four bytes: nearly every name is settled without encoding it.
    most = context.limits.max_name_bytes
    if len(name) * 4 > most and len(name.encode()) > most:
        model = context.model if len(context.model) <= most else "?"
        raise PayloadTooLarge(f"{what} of a request for model '{model}' is longer than {most} bytes")
    return name


def check_bytes_count(name: str, count: int, context: DecodeContext) -> None:
    """Refuse more elements of a BYTES input than allowed.

    Raises:
        PayloadTooLarge: naming both counts.
    """
    most = context.limits.max_bytes_elements
    if count > most:
        msg = f"has {count} BYTES elements, at most {most} are allowed"
        raise PayloadTooLarge(f"input '{name}' for model '{context.model}' {msg}")


def check_rank(name: str, axes: int, context: DecodeContext) -> None:
    """Refuse more axes of an input than allowed.

    Raises:
        PayloadTooLarge: naming both counts.
    """
    most = context.limits.max_rank
    if axes > most:
        msg = f"has {axes} axes, at most {most} are allowed"
        raise PayloadTooLarge(f"input '{name}' for model '{context.model}' {msg}")


def element_count(name: str, shape: Sequence[int], context: DecodeContext) -> int:
    """Return the number of elements of input `name`: the product of `shape`, 1 for a scalar.

    Axes are multiplied one by one and the product is refused as soon as it passes the limit, zero-sized
    axes aside, so that no product and no array can overflow however large the axes are.

    Raises:
        InvalidRequest: a negative axis.
        PayloadTooLarge: too many axes or elements.
    """
    limits = context.limits
    check_rank(name, len(shape), context)
    product, empty = 1, False
    for size in shape:
        if size < 0:
            msg = f"contains one or more invalid dimensions: {list(shape)}"
            raise InvalidRequest(f"input '{name}' for model '{context.model}' {msg}")
        empty = empty or size == 0
        product *= size or 1
        if product > limits.max_tensor_elements:
            raise _too_many_elements(name, shape, context)
    return 0 if empty else product


def _too_many_elements(name: str, shape: Sequence[int], context: DecodeContext) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"input '{name}' for model '{context.model}' of shape {list(shape)} has more than the "
        f"{context.limits.max_tensor_elements} elements allowed"
    )
