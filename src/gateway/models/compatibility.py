"""Which requests and answers of a version would break by another that takes its place. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.core.types import ModelSignature, TensorSpec


def breaking_changes(now: ModelSignature, new: ModelSignature) -> list[str]:
    """Return what stands in the way of serving `new` to the clients of `now`; empty when nothing does.

    A request that is valid for `now` must be valid for `new`, and its answer have the outputs, datatypes and
    shapes that `now` promises. So inputs may grow wider (a fixed size becomes variable, a required input
    optional, an optional one is added) and outputs narrower (a variable size becomes fixed), and outputs may
    be added.

    Returns:
        One sentence per change, inputs first, each naming the tensor and both sides.
    """
    return [*_inputs(now, new), *_outputs(now, new), *_kind(now, new)]


def _inputs(now: ModelSignature, new: ModelSignature) -> Iterator[str]:
    after = {spec.name: spec for spec in new.inputs}
    known = {spec.name for spec in now.inputs}
    added = [spec for spec in new.inputs if spec.name not in known]
    for spec in now.inputs:
        other = after.get(spec.name)
        if other is None:
            yield f"input '{spec.name}' is gone{_perhaps_renamed(spec, added)}"
            continue
        yield from _tensor(f"input '{spec.name}'", spec, other)
        if spec.optional and not other.optional:
            yield f"input '{spec.name}' was optional and is required now"
        if len(spec.shape) == len(other.shape) and not _covers(other.shape, spec.shape):
            yield f"input '{spec.name}' had shape {_dims(spec)} and has {_dims(other)} now"
    for spec in added:
        if not spec.optional:
            yield f"input '{spec.name}' ({spec.datatype.value} {_dims(spec)}) is new and required"
    if any(s.batch_axis is not None for s in added) and all(s.batch_axis is None for s in now.inputs):
        # Left out, it would leave the request without a number of rows.
        yield "no input had a batch axis, and one has now"


def _outputs(now: ModelSignature, new: ModelSignature) -> Iterator[str]:
    after = {spec.name: spec for spec in new.outputs}
    known = {spec.name for spec in now.outputs}
    added = [spec for spec in new.outputs if spec.name not in known]
    for spec in now.outputs:
        other = after.get(spec.name)
        if other is None:
            yield f"output '{spec.name}' is gone{_perhaps_renamed(spec, added)}"
            continue
        yield from _tensor(f"output '{spec.name}'", spec, other)
        if len(spec.shape) == len(other.shape) and not _covers(spec.shape, other.shape):
            yield f"output '{spec.name}' had shape {_dims(spec)} and has {_dims(other)} now"


def _kind(now: ModelSignature, new: ModelSignature) -> Iterator[str]:
    if now.decoupled != new.decoupled:
        words = {True: "with any number of responses", False: "with one response"}
        yield f"requests were answered {words[now.decoupled]} and are {words[new.decoupled]} now"


def _tensor(title: str, now: TensorSpec, new: TensorSpec) -> Iterator[str]:
    """Give what must be the same on either side."""
    if now.datatype is not new.datatype:
        yield f"{title} was {now.datatype.value} and is {new.datatype.value} now"
    if len(now.shape) != len(new.shape):
        yield f"{title} had {len(now.shape)} axes, {_dims(now)}, and has {len(new.shape)} now, {_dims(new)}"
    elif now.batch_axis != new.batch_axis:
        yield f"{title} had {_axis(now.batch_axis)} and has {_axis(new.batch_axis)} now"


def _covers(wide: Sequence[int], narrow: Sequence[int]) -> bool:
    """Whether every size that `narrow` allows is one that `wide` allows."""
    return all(w in (-1, n) for w, n in zip(wide, narrow, strict=True))


def _perhaps_renamed(gone: TensorSpec, added: Sequence[TensorSpec]) -> str:
    """Return a hint at an added tensor that only its name tells from the one that is gone."""
    alike = [s.name for s in added if (s.datatype, s.shape) == (gone.datatype, gone.shape)]
    return f" (renamed to '{alike[0]}'?)" if len(alike) == 1 else ""


def _axis(batch_axis: int | None) -> str:
    return "no batch axis" if batch_axis is None else f"batch axis {batch_axis}"


def _dims(spec: TensorSpec) -> str:
    return f"[{','.join(map(str, spec.shape))}]"
