"""Find out by running whether a model treats its rows independently, so that merging requests is harmless."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from gateway.backends.generation import Sizes, bucket_choices, generate_all
from gateway.core.types import Array, Datatype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gateway.core.options import ModelSpec
    from gateway.core.types import ModelSignature

Run: TypeAlias = "Callable[[Mapping[str, Array]], Mapping[str, Array]]"

_ROWS: Final = 3
_SEED: Final = 20_240_229
# Sizes tried for variable axes that nothing declares: tokens and features first, then sides of images. A
# wrong guess costs a failed run and nothing else.
_GUESSES: Final = (1, 8, 32, 48, 64, 224)
# Kernels differ a little with the number of rows, and dynamic quantisation takes its scale over all of them.
# Coupling that matters (normalising, attending, pooling, sorting over rows) moves random rows by far more.
_TOLERANCE: Final = 0.05


class Rows(enum.Enum):
    """How a model treats its rows."""

    INDEPENDENT = "independent"
    COUPLED = "coupled"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, and why in one sentence fragment."""

    rows: Rows
    reason: str = ""


def check_rows(run: Run, signature: ModelSignature, spec: ModelSpec, budget_s: float = 5.0) -> Finding:
    """Run three random rows together and each alone, and compare.

    Args:
        run: runs one batch: input name -> array to output name -> array; may raise anything.
        signature: with the batch axes in question.
        spec: its warm-up shapes and buckets decide variable axes.
        budget_s: seconds after which no further guess at a size is begun; a run is never interrupted.
    """
    until_s = time.monotonic() + budget_s
    finding = Finding(Rows.UNKNOWN, "it was not tried")
    for sizes in _candidates(signature, spec):
        finding = _try(run, signature, sizes)
        if finding.rows is not Rows.UNKNOWN or time.monotonic() > until_s:
            break
    return finding


def _candidates(signature: ModelSignature, spec: ModelSpec) -> Iterator[Sizes]:
    buckets = bucket_choices(spec)[0]
    variable = any(
        size < 0 and axis != t.batch_axis for t in signature.inputs for axis, size in enumerate(t.shape)
    )
    for guess in _GUESSES if variable else _GUESSES[:1]:
        yield Sizes(spec.warm_up.shapes, buckets, guess)


def _try(run: Run, signature: ModelSignature, sizes: Sizes) -> Finding:
    rng = np.random.default_rng(_SEED)
    try:
        inputs = generate_all(signature, sizes, _ROWS, rng)
        together = run(inputs)
        alone = [run(_row(signature, inputs, row)) for row in range(_ROWS)]
        again = run(_row(signature, inputs, 0))
    except Exception as error:  # noqa: BLE001 - a model may refuse made-up input in any way; that proves nothing
        return Finding(Rows.UNKNOWN, f"it refuses generated input: {error}")
    return _compare(signature, together, alone, again)


def _row(signature: ModelSignature, inputs: Mapping[str, Array], row: int) -> dict[str, Array]:
    axes = {t.name: t.batch_axis for t in signature.inputs}
    return {name: _take(array, axes[name], row) for name, array in inputs.items()}


def _take(array: Array, axis: int | None, row: int) -> Array:
    return array if axis is None else np.ascontiguousarray(array.take([row], axis=axis))


def _compare(
    signature: ModelSignature,
    together: Mapping[str, Array],
    alone: list[Mapping[str, Array]],
    again: Mapping[str, Array],
) -> Finding:
    for output in signature.outputs:
        name, axis = output.name, output.batch_axis
        assert axis is not None
        if not _alike(alone[0][name], again[name]):
            return Finding(Rows.UNKNOWN, f"output '{name}' differs from run to run")
        array = together[name]
        if array.ndim <= axis or array.shape[axis] != _ROWS:
            shape = list(array.shape)
            return Finding(Rows.COUPLED, f"{_ROWS} rows give output '{name}' the shape {shape}")
        for row in range(_ROWS):
            if not _alike(alone[row][name], _take(array, axis, row)):
                return Finding(
                    Rows.COUPLED,
                    f"a row gives another '{name}' in company than alone (input shapes as tried)",
                )
    return Finding(Rows.INDEPENDENT)


def _alike(expected: Array, got: Array) -> bool:
    if expected.shape != got.shape:
        return False
    if expected.size == 0:
        return True
    if expected.dtype == Datatype.BF16.dtype or np.issubdtype(expected.dtype, np.floating):
        return _close(expected.astype(np.float64), got.astype(np.float64))
    # Labels and indices: a tie broken otherwise is forgiven among many, not among few.
    return float(np.mean(expected != got)) <= _TOLERANCE


def _close(expected: Array, got: Array) -> bool:
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(got)):
        return False
    if not finite.any():
        return True
    scale = float(np.abs(expected[finite]).max())
    return float(np.abs(expected[finite] - got[finite]).max()) <= _TOLERANCE * scale + 1e-6
