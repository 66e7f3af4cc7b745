"""Runs the golden tests of a version on a loaded model, before it serves."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.core.errors import GatewayError, ModelLoadError
from gateway.core.types import Array, Batch
from gateway.models.golden.cases import MIB, MOST_BYTES, GoldenCase
from gateway.models.golden.comparison import difference
from gateway.models.golden.jsonl import JSONL, jsonl_cases
from gateway.models.golden.npz import NPZ, npz_cases

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gateway.core.interfaces import LoadedModel
    from gateway.core.options import BatchingOptions, ModelSpec
    from gateway.core.types import ModelSignature

_READERS: Final = {JSONL: jsonl_cases, NPZ: npz_cases}


async def find_golden(directory: Path) -> Sequence[Path]:
    """Return the golden tests in a version's directory, looked for in a thread."""
    return await asyncio.to_thread(golden_files, directory)


def golden_files(directory: Path) -> Sequence[Path]:
    """Return the golden tests in a version's directory, whatever they turn out to be. Blocks."""
    return tuple(directory / name for name in _READERS if os.path.lexists(directory / name))


async def run_golden(model: LoadedModel, spec: ModelSpec, files: Sequence[Path]) -> int:
    """Run every case of every file; reading and comparing is done in a thread.

    Rows beyond the largest batch are run in parts, and parts padded to an allowed size, as requests are.
    Cancelling stops before the next run.

    Args:
        model: loaded, idle.
        spec: its settings.
        files: as `golden_files` gives them.

    Returns:
        How many runs were made.

    Raises:
        ModelLoadError: an answer is not the expected one, a run failed, or a file cannot be used; the message
            names case, output, index, both values and the worst error.
    """
    if model.signature.decoupled:
        raise ModelLoadError("golden tests of a decoupled model cannot be run: leave them out of the version")
    runs = [await _run_file(model, spec.batching, path) for path in files]
    return sum(runs)


async def _run_file(model: LoadedModel, batching: BatchingOptions, path: Path) -> int:
    runs, cases = 0, _cases(path, model.signature)
    while (case := await asyncio.to_thread(next, cases, None)) is not None:
        runs += await _run(model, batching, case)
    if not runs:
        raise ModelLoadError(f"{path.name} holds no case")
    return runs


def _cases(path: Path, signature: ModelSignature) -> Iterator[GoldenCase]:
    yield from _READERS[path.name](_read(path), signature)


def _read(path: Path) -> bytes:
    """Read a regular file of the version, whatever else may be there in its place."""
    try:
        resolved = path.resolve(strict=True)
        if not resolved.is_relative_to(path.parent.resolve()):
            raise ModelLoadError(f"{path.name} is a link that leaves the version's directory")
        # Not blocking: opening a pipe would wait for its writer.
        with open(os.open(resolved, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ModelLoadError(f"{path.name} is no regular file")
            if status.st_size > MOST_BYTES:
                size = f"{status.st_size / MIB:.0f} MiB"
                raise ModelLoadError(f"{path.name} has {size}, at most {MOST_BYTES // MIB} are read")
            return file.read(MOST_BYTES)
    except OSError as error:
        raise ModelLoadError(f"{path.name} cannot be read: {error.strerror}") from error


async def _run(model: LoadedModel, batching: BatchingOptions, case: GoldenCase) -> int:
    """Run one case and compare; return the number of runs."""
    signature = model.signature
    names = tuple(spec.name for spec in signature.outputs if spec.name in case.outputs)
    answers: list[Mapping[str, Array]] = []
    try:
        for run in _runs(case, signature, batching):
            result = await model.infer(Batch(run.inputs, run.padded_rows, names))
            answers.append(run.without_padding(result.outputs, signature))
    except (GatewayError, ValueError) as error:
        raise ModelLoadError(f"{case.title}: {error}") from error
    problem = await asyncio.to_thread(_problem, case, answers, signature)
    if problem is not None:
        raise ModelLoadError(f"{problem} (on {model.device})")
    return len(answers)


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of a part of a case.

    Attributes:
        inputs: what the model gets.
        rows: rows of the part; None for a model without a batch axis.
        padded_rows: size of the batch; 1 for such a model.
    """

    inputs: Mapping[str, Array]
    rows: int | None = None
    padded_rows: int = 1

    def without_padding(self, outputs: Mapping[str, Array], signature: ModelSignature) -> Mapping[str, Array]:
        """Return the outputs with their own rows only."""
        if self.rows is None or self.rows == self.padded_rows:
            return outputs
        axes = {spec.name: spec.batch_axis or 0 for spec in signature.outputs}
        return {name: a[_rows(axes[name], 0, self.rows)] for name, a in outputs.items() if name in axes}


def _runs(case: GoldenCase, signature: ModelSignature, batching: BatchingOptions) -> Iterator[_Run]:
    """Give the runs that answer a case.

    Raises:
        ValueError: nothing says how many rows it has.
    """
    if not signature.batchable:
        yield _Run(case.inputs)
        return
    axes = {s.name: s.batch_axis for s in signature.inputs if s.batch_axis is not None}
    sizes = {array.shape[axes[name]] for name, array in case.inputs.items() if name in axes}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"its inputs must have one number of rows, and have {sorted(sizes)}")
    (total,) = sizes
    most = min((batching.max_batch_rows, *batching.allowed_rows[-1:]))
    for start in range(0, total, most):
        rows = min(most, total - start)
        padded = next((size for size in batching.allowed_rows if size >= rows), rows)
        inputs = {
            name: _padded(array[_rows(axes[name], start, rows)], axes[name], padded)
            if name in axes
            else array
            for name, array in case.inputs.items()
        }
        yield _Run(inputs, rows, padded)


def _padded(array: Array, axis: int, rows: int) -> Array:
    """Return rows as a run takes them: with rows of zeros behind them, contiguous."""
    missing = rows - array.shape[axis]
    if missing:
        shape = [missing if a == axis else size for a, size in enumerate(array.shape)]
        zero: object = b"" if array.dtype.hasobject else 0
        array = np.concatenate([array, np.full(shape, zero, array.dtype)], axis)
    return np.ascontiguousarray(array)


def _rows(axis: int, start: int, count: int) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, slice(start, start + count))


def _problem(
    case: GoldenCase, answers: Sequence[Mapping[str, Array]], signature: ModelSignature
) -> str | None:
    """Return what is wrong with the answers to a case; in a thread."""
    for spec in signature.outputs:
        if spec.name not in case.outputs:
            continue
        axis = spec.batch_axis or 0
        parts = [answer[spec.name] for answer in answers]
        got = parts[0] if len(parts) == 1 else np.concatenate(parts, axis)
        found = difference(got, case.outputs[spec.name], case.tolerance)
        if found is not None:
            row = f"{case.row_titles} {found.at[axis] + 1}" if case.row_titles and found.at else case.title
            return f"{row}: output '{spec.name}' {found.text}"
    return None
