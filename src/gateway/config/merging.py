"""Puts a model's own file, the defaults and its entry together, and checks what they come to."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from gateway.core.errors import ModelLoadError

if TYPE_CHECKING:
    from gateway.config.model_settings import ModelSettings
    from gateway.core.options import BatchingOptions, ModelSpec


def merged(spec: ModelSpec, defaults: ModelSettings, own: ModelSettings | None) -> ModelSpec:
    """Return `spec` with the defaults and then the model's entry applied. Pure.

    A positive `spec.max_batch_size` is the model file's word on what it can take. The defaults give way to
    it; an entry that asks for more is refused, as one of the two must be wrong.

    Args:
        spec: what the model's config.pbtxt makes of it.
        defaults: settings of every model.
        own: settings of this one, or None.

    Raises:
        ModelLoadError: settings from different places contradict each other; both are named.
    """
    most = spec.max_batch_size or 0
    spec = defaults.apply(spec)
    if most:
        spec = dataclasses.replace(spec, batching=_within(spec.batching, most))
    if own is not None:
        spec = own.apply(spec)
    batching = _checked(spec.batching, most)
    return dataclasses.replace(spec, batching=batching)


def _within(batching: BatchingOptions, most: int) -> BatchingOptions:
    """Return `batching` with no size above `most` rows."""
    allowed = tuple(rows for rows in batching.allowed_rows if rows <= most)
    return dataclasses.replace(
        batching, allowed_rows=allowed, max_batch_rows=min(batching.max_batch_rows, most)
    )


def _checked(batching: BatchingOptions, most: int) -> BatchingOptions:
    """Return `batching` with `max_batch_rows` bounded by the last allowed size."""
    largest = max((batching.max_batch_rows, *batching.allowed_rows))
    if most and largest > most:
        raise ModelLoadError(
            f"the configuration asks for batches of {largest} rows, beyond the max_batch_size {most} that "
            "the model's config.pbtxt declares: lower the one or raise the other"
        )
    if 0 < batching.priority_levels < batching.default_priority:
        raise ModelLoadError(
            f"default_priority {batching.default_priority} is beyond priority_levels "
            f"{batching.priority_levels}, counting the defaults and the model's config.pbtxt"
        )
    rows = min((batching.max_batch_rows, *batching.allowed_rows[-1:]))
    return dataclasses.replace(batching, max_batch_rows=rows)
