"""Whether a shadow's answer agrees with the primary's: pure, and safe off the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.core.rollout import Comparison
from gateway.core.types import Datatype

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from gateway.core.rollout import OutputRule
    from gateway.core.types import Array, Tensor

    Mask = npt.NDArray[np.bool_]

_FLOATS: Final = frozenset({Datatype.FP16, Datatype.FP32, Datatype.FP64, Datatype.BF16})
_OBJECT_BYTES: Final = 64
"""What an element of a BYTES tensor counts for in `comparison_bytes`: comparing one takes as long."""


def comparable(names: Sequence[str], rules: Sequence[OutputRule]) -> bool:
    """Whether a request for these outputs (empty: all of them) has any that the rules look at."""
    return not names or not rules or any(rule.output in names for rule in rules)


def comparison_bytes(primary: Sequence[Tensor]) -> int:
    """Return how much a comparison with these outputs has to look at."""
    return sum(
        [t.array.size * _OBJECT_BYTES if t.datatype is Datatype.BYTES else t.array.nbytes for t in primary]
    )


def agree(primary: Sequence[Tensor], shadow: Sequence[Tensor], rules: Sequence[OutputRule]) -> bool:
    """Return whether two answers to one request agree.

    Args:
        primary: outputs that the client got; decides what is compared.
        shadow: outputs of the copy. One that is missing, or has another datatype or shape, disagrees; one
            that the primary does not have is not looked at.
        rules: outputs compared, and how; empty compares all of the primary's exactly.
    """
    found = {tensor.name: tensor for tensor in shadow}
    if not rules:
        return all(_fits(t, found.get(t.name)) and _exact(t.array, found[t.name].array) for t in primary)
    asked = {tensor.name: tensor for tensor in primary}
    return all(
        _fits(asked[rule.output], found.get(rule.output))
        and _within(rule, asked[rule.output], found[rule.output].array)
        for rule in rules
        if rule.output in asked
    )


def _fits(primary: Tensor, shadow: Tensor | None) -> bool:
    """Whether an output of the shadow is there, with the datatype and the shape of the primary's."""
    return (
        shadow is not None
        and shadow.datatype is primary.datatype
        and shadow.array.dtype == primary.array.dtype
        and shadow.array.shape == primary.array.shape
    )


def _within(rule: OutputRule, primary: Tensor, shadow: Array) -> bool:
    if rule.how is Comparison.EXACT or primary.datatype is Datatype.BYTES:
        return _exact(primary.array, shadow)
    if rule.how is Comparison.TOP_K:
        return _top_k(primary.array, shadow, int(rule.tolerance))
    if _exact(primary.array, shadow):
        return True
    relative = rule.how is Comparison.RELATIVE
    if primary.datatype in _FLOATS:
        return _floats_close(primary.array, shadow, rule.tolerance, relative=relative)
    return _integers_close(primary.array, shadow, rule.tolerance, relative=relative)


def _exact(primary: Array, shadow: Array) -> bool:
    """Whether all elements are equal; NaN equals NaN, and 0.0 equals -0.0."""
    same: Mask = np.asarray(primary == shadow)
    if same.all():
        return True
    # Only NaN is not equal to itself.
    return bool((same | ((primary != primary) & (shadow != shadow))).all())  # noqa: PLR0124


def _floats_close(primary: Array, shadow: Array, tolerance: float, *, relative: bool) -> bool:
    one, other = primary.astype(np.float64), shadow.astype(np.float64)
    with np.errstate(all="ignore"):
        limit: Any = tolerance * np.abs(one) if relative else tolerance
        # Equal infinities differ by NaN, and an infinite limit would let anything pass.
        close: Mask = (np.abs(one - other) <= limit) & np.isfinite(one)
    return bool((close | (one == other) | (np.isnan(one) & np.isnan(other))).all())


def _integers_close(primary: Array, shadow: Array, tolerance: float, *, relative: bool) -> bool:
    # Modulo 2**64 the difference of the larger and the smaller is exact, whatever their signs.
    larger, smaller = np.maximum(primary, shadow), np.minimum(primary, shadow)
    difference = larger.astype(np.uint64) - smaller.astype(np.uint64)
    limit: Any = tolerance * np.abs(primary.astype(np.float64)) if relative else tolerance
    return bool((difference.astype(np.float64) <= limit).all())


def _top_k(primary: Array, shadow: Array, k: int) -> bool:
    """Whether the k largest of the last axis are the same in the same order; of equals the first is larger.

    An answer with NaN where the other has none disagrees: it has no largest elements to speak of.
    """
    if primary.ndim == 0:
        return True
    if not np.array_equal(primary != primary, shadow != shadow):  # noqa: PLR0124
        return False
    return bool(np.array_equal(_largest(primary, k), _largest(shadow, k)))


def _largest(array: Array, k: int) -> npt.NDArray[np.intp]:
    """Return the places of the k largest along the last axis, largest first."""
    if k == 1 and array.shape[-1]:
        return np.asarray(np.argmax(array, axis=-1))
    last = array.shape[-1] - 1
    # A stable sort of the reversed axis, reversed again, puts the first of equals first.
    backwards = np.argsort(array[..., ::-1], axis=-1, kind="stable")
    places: npt.NDArray[np.intp] = last - backwards[..., ::-1][..., :k]
    return places
