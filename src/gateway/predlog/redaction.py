"""What a policy's rules leave of a tensor: columns, made before anything leaves the process.

A plan is made once for a tensor of one shape and applied to the rows of every batch, vectorised over numbers.
The random projection is a count sketch with a fixed bucket for each place (Charikar, Chen and Farach-Colton
2002): element i is added to coordinate i mod 64 with a sign that is hashed from i, so that inner products are
kept on average, no matrix is held, and every gateway has the same coordinates.
"""

from __future__ import annotations

import hmac
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from gateway.core.errors import ConfigError
from gateway.predlog.policy import MAX_COLUMN_WIDTH, Rule, TensorRule
from gateway.predlog.rows import ColumnKind, Role
from gateway.predlog.wire_rows import MAX_WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy.typing as npt

    from gateway.core.types import Array

PROJECTION_WIDTH: Final = 64
"""Coordinates of a projection."""

MAX_CATEGORIES: Final = 4096
"""Categories of one column in one frame; the rest is OTHER."""

MAX_CATEGORY_BYTES: Final = 256
"""A longer value is cut."""

OTHER: Final = b"__other__"
"""The category of what is beyond a bound."""

SUMMARY: Final = ("mean", "std", "min", "max", "zeros", "missing")
"""Columns of a summary; the last two are shares."""

HMAC_BYTES: Final = 12
"""Of a keyed hash, in hexadecimal: 96 bits tell apart more values than anybody logs."""

_CONDENSED: Final = {Rule.SUMMARY, Rule.PROJECTION}
_FITTING: Final = {
    "BYTES": {Rule.CATEGORY, Rule.HMAC, Rule.TRUNCATE, Rule.LENGTH},
    "whole numbers": {Rule.KEEP, *_CONDENSED, Rule.BUCKET, Rule.CATEGORY, Rule.HMAC},
    "fractions": {Rule.KEEP, *_CONDENSED, Rule.BUCKET},
}
"""Rules by what a tensor is made of."""
_CHUNK: Final = 1 << 18
"""Elements looked at at once: 1 MiB of float32, about 0.3 ms, most of it without the interpreter's lock."""


class ColumnSpec(NamedTuple):
    """A column without its rows; attributes as of `Column`."""

    name: str
    role: Role
    kind: ColumnKind
    labels: tuple[str, ...] = ()


class Vocabulary:
    """The categories of one column in one frame, bounded.

    Args:
        fixed: categories that are there from the start.
    """

    def __init__(self, fixed: Iterable[bytes] = ()) -> None:
        self._codes = {value: code for code, value in enumerate(fixed)}

    def code(self, value: bytes) -> int:
        """Return a category's code; that of OTHER beyond the bound."""
        value = value[:MAX_CATEGORY_BYTES]
        code = self._codes.get(value)
        if code is None:
            if len(self._codes) >= MAX_CATEGORIES:
                value = OTHER
            code = self._codes.setdefault(value, len(self._codes))
        return code

    def values(self) -> tuple[bytes, ...]:
        """Return the categories by code."""
        return tuple(self._codes)


class TensorPlan:
    """How one tensor becomes columns.

    Args:
        specs: the columns.
        redact: `[rows, width]` in, one `[rows, spec's width]` per column out; a view where nothing changes.
        fixed: categories that every frame has, of a column with given ones.
    """

    def __init__(
        self,
        specs: tuple[ColumnSpec, ...],
        redact: Callable[[Array, Vocabulary], list[Array]],
        fixed: tuple[bytes, ...] = (),
    ) -> None:
        self.specs = specs
        self.redact = redact
        self.fixed = fixed


UNPLANNED: Final = TensorPlan((), lambda _values, _vocabulary: [])
"""Of a tensor that is looked at and not logged."""


class LoggedTensor(NamedTuple):
    """What is known of a tensor before its values.

    Attributes:
        name: of the tensor.
        role: input or output.
        dtype: of its array.
        width: values per row.
        varies: whether that differs from request to request.
    """

    name: str
    role: Role
    dtype: np.dtype[Any]
    width: int
    varies: bool = False


def plan_tensor(tensor: LoggedTensor, rule: TensorRule, secret: bytes) -> TensorPlan | None:
    """Return what to do with a tensor; None drops it.

    Args:
        tensor: what it is.
        rule: of the policy.
        secret: of keyed hashes.

    Raises:
        ConfigError: the rule does not fit the tensor.
    """
    name, role, _, width, _ = tensor
    kind = _chosen(tensor, rule.rule)
    if kind is Rule.DROP:
        return None
    _check_fits(tensor, kind)
    if kind in _CONDENSED:
        return _condensed(name, role, projected=kind is Rule.PROJECTION)
    if rule.labels and len(rule.labels) != width:
        raise ConfigError(
            f"prediction_log: tensor '{name}' has {width} values, not {len(rule.labels)} labels"
        )
    if kind in {Rule.KEEP, Rule.LENGTH}:
        spec = ColumnSpec(name, role, ColumnKind.NUMERIC, rule.labels)
        return TensorPlan((spec,), _kept if kind is Rule.KEEP else _lengths)
    spec = ColumnSpec(name, role, ColumnKind.CATEGORY, rule.labels)
    if kind is Rule.BUCKET:
        return _bucketed(spec, rule.edges)
    return TensorPlan((spec,), _categories(_mapping(name, kind, rule, secret)))


def _chosen(tensor: LoggedTensor, rule: Rule) -> Rule:
    """Return the rule that AUTO, or KEEP of BYTES, comes to."""
    if tensor.dtype.kind == "O":
        return {Rule.AUTO: Rule.DROP, Rule.KEEP: Rule.CATEGORY}.get(rule, rule)
    if rule is not Rule.AUTO:
        return rule
    return Rule.PROJECTION if tensor.varies or tensor.width > MAX_COLUMN_WIDTH else Rule.KEEP


def _check_fits(tensor: LoggedTensor, kind: Rule) -> None:
    what = {"O": "BYTES", **dict.fromkeys("biu", "whole numbers")}.get(tensor.dtype.kind, "fractions")
    if kind not in _FITTING[what]:
        raise ConfigError(
            f"prediction_log: rule '{kind.value}' does not fit tensor '{tensor.name}' of {what}"
        )
    if kind not in _CONDENSED and tensor.width > MAX_WIDTH:
        raise ConfigError(
            f"prediction_log: tensor '{tensor.name}' has {tensor.width} values per row, "
            f"rule '{kind.value}' takes {MAX_WIDTH}"
        )


def numeric(array: Array) -> Array:
    """Return numbers in a type that the wire has: bfloat16 as float32, all others as they are."""
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _kept(array: Array, _vocabulary: Vocabulary) -> list[Array]:
    return [numeric(array)]


def _lengths(array: Array, _vocabulary: Vocabulary) -> list[Array]:
    return [np.array([len(value) for value in array.ravel()], np.int32).reshape(array.shape)]


def _bucketed(spec: ColumnSpec, edges: tuple[float, ...]) -> TensorPlan:
    bounds = np.array(edges, np.float64)
    texts = ["-inf", *(f"{edge:g}" for edge in edges)]
    names = [f"({low},{high}]" for low, high in pairwise(texts)]
    fixed = tuple([name.encode() for name in [*names, f"({texts[-1]},inf)"]])

    def redact(array: Array, _vocabulary: Vocabulary) -> list[Array]:
        values = numeric(array).astype(np.float64)
        codes = np.searchsorted(bounds, values, side="left").astype(np.int32)
        codes[np.isnan(values)] = -1
        return [codes]

    return TensorPlan((spec,), redact, fixed)


def _mapping(name: str, kind: Rule, rule: TensorRule, secret: bytes) -> Callable[[bytes], bytes]:
    if kind is Rule.TRUNCATE:
        return lambda value: value[: rule.length]
    if kind is Rule.HMAC:
        context = name.encode() + b"\0"

        @lru_cache(MAX_CATEGORIES)
        def hashed(value: bytes) -> bytes:
            return hmac.digest(secret, context + value, "sha256")[:HMAC_BYTES].hex().encode()

        return hashed
    return lambda value: value


def _categories(mapping: Callable[[bytes], bytes]) -> Callable[[Array, Vocabulary], list[Array]]:
    def redact(array: Array, vocabulary: Vocabulary) -> list[Array]:
        code = vocabulary.code
        if array.dtype.kind == "O":
            codes = [code(mapping(_as_bytes(value))) for value in array.ravel().tolist()]
            return [np.array(codes, np.int32).reshape(array.shape)]
        values, places = np.unique(array, return_inverse=True)
        known = np.array([code(mapping(str(value).encode())) for value in values.tolist()], np.int32)
        return [known[places].reshape(array.shape)]

    return redact


def _as_bytes(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


def _condensed(name: str, role: Role, *, projected: bool) -> TensorPlan:
    specs = [ColumnSpec(f"{name}.{part}", role, ColumnKind.NUMERIC) for part in SUMMARY]
    if projected:
        specs.append(ColumnSpec(name, role, ColumnKind.PROJECTION))

    def redact(array: Array, _vocabulary: Vocabulary) -> list[Array]:
        step = max(1, _CHUNK // max(1, array.shape[1]))
        chunks = [_condense(array[at : at + step], projected=projected) for at in range(0, len(array), step)]
        return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]

    return TensorPlan(tuple(specs), redact)


def _condense(array: Array, *, projected: bool) -> list[Array]:
    """Return the columns of SUMMARY, `[rows, 1]` each, and perhaps the projection; float32 throughout."""
    values = numeric(array).astype(np.float32)
    rows, width = values.shape
    missing = np.isnan(values)
    absent = missing.sum(axis=1, dtype=np.float32)
    if width == 0:
        empty = np.full((rows, 1), np.nan, np.float32)
        columns: list[Array] = [empty] * len(SUMMARY)
    else:
        there = np.where(missing, np.float32(0), values) if absent.any() else values
        count = np.maximum(width - absent, 1)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = there.sum(axis=1, dtype=np.float64) / count
            square = np.einsum("ij,ij->i", there, there, dtype=np.float64)
            deviation = np.sqrt(np.maximum(square / count - mean * mean, 0))
        low = (
            np.where(missing, np.float32(np.inf), values).min(axis=1) if absent.any() else values.min(axis=1)
        )
        high = (
            np.where(missing, np.float32(-np.inf), values).max(axis=1) if absent.any() else values.max(axis=1)
        )
        zeros = (values == 0).sum(axis=1) / width
        columns = [mean, deviation, low, high, zeros, absent / width]
        gone = absent == width
        columns = [
            np.where(gone & (place < 4), np.nan, column).astype(np.float32)[:, None]
            for place, column in enumerate(columns)
        ]
        values = there
    if projected:
        columns.append(_projected(values))
    return columns


def _projected(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return `[rows, PROJECTION_WIDTH]`, of a length like that of the elements' deviation."""
    rows, width = values.shape
    places = -(-width // PROJECTION_WIDTH) or 1
    signed = np.zeros((rows, places * PROJECTION_WIDTH), np.float32)
    np.multiply(values, _signs(width), out=signed[:, :width])
    with np.errstate(over="ignore", invalid="ignore"):
        folded = signed.reshape(rows, places, PROJECTION_WIDTH).sum(axis=1)
    return np.asarray(folded / np.float32(np.sqrt(places)), np.float32)


@lru_cache(32)
def _signs(width: int) -> npt.NDArray[np.float32]:
    """Return 1 or -1 for each place, by one bit of splitmix64 of it."""
    mixed = np.arange(1, width + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return np.where((mixed ^ mixed >> np.uint64(31)) >> np.uint64(63), np.float32(1), np.float32(-1))


def unusual(array: Array, low: float, high: float) -> npt.NDArray[np.bool_]:
    """Return for each row whether a value is outside of the bounds; missing ones are not.

    Args:
        array: `[rows, width]`, numbers.
        low: least usual value.
        high: largest usual value.
    """
    values = numeric(array)
    return np.asarray(((values < low) | (values > high)).any(axis=1), np.bool_)
