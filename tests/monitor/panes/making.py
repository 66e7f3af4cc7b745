"""Batches and profiles made for the tests of panes and engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from gateway.monitor.profile.reference import (
    BINS,
    CategoryReference,
    EmbeddingReference,
    NumericReference,
    Profile,
    Task,
    TaskKind,
)
from gateway.predlog.rows import Column, ColumnKind, Role, RowBatch
from gateway.predlog.wire import Producer, frame_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

START_S = 1_760_000_040
"""Begin of a minute and of an event time that tests use."""

COLORS = (b"red", b"green", b"blue")


def numeric(name: str, values: Any, role: Role = Role.INPUT, labels: tuple[str, ...] = ()) -> Column:
    """Return a NUMERIC column of `[rows]` or `[rows, width]` values."""
    array = np.ascontiguousarray(values)
    array = array.reshape(len(array), -1)
    return Column(name, role, ColumnKind.NUMERIC, array, (), labels)


def category(name: str, values: Sequence[bytes | None], role: Role = Role.INPUT) -> Column:
    """Return a CATEGORY column; None where missing."""
    dictionary = tuple(dict.fromkeys(value for value in values if value is not None))
    places = {value: i for i, value in enumerate(dictionary)}
    codes = np.array([[-1 if value is None else places[value]] for value in values], np.int32)
    return Column(name, role, ColumnKind.CATEGORY, codes, dictionary)


def batch(rows: int, *columns: Column, **given: Any) -> RowBatch:
    """Return a batch of rows done at START_S; any field may be given, per-row ones as one value or many."""
    first = given.pop("first", 0)
    arms = given.pop("arms", ("",))
    statuses = given.pop("statuses", ("",))

    def per_row(name: str, default: Any, dtype: Any) -> Any:
        return np.ascontiguousarray(np.broadcast_to(np.asarray(given.pop(name, default), dtype), (rows,)))

    done_s = given.pop("done_s", START_S)
    ids = np.arange(first, first + rows, dtype=np.uint64)
    return RowBatch(
        model=given.pop("model", "fraud"),
        version=given.pop("version", 3),
        digest=given.pop("digest", "d" * 8),
        policy=given.pop("policy", "p1"),
        rows=rows,
        keys=tuple(b"key-%d" % i for i in ids.tolist()),
        key_hashes=per_row("key_hashes", ids * np.uint64(0x9E3779B97F4A7C15), np.uint64),
        row_indexes=per_row("row_indexes", 0, np.uint32),
        arrived_ns=per_row("arrived_ns", (np.asarray(done_s) * 1e9), np.int64),
        done_ns=np.ascontiguousarray(
            np.broadcast_to(np.asarray(np.asarray(done_s) * 1e9, np.int64), (rows,))
        ),
        queue_us=per_row("queue_us", 100, np.uint32),
        infer_us=per_row("infer_us", 1000, np.uint32),
        arms=arms,
        arm_codes=per_row("arm_codes", 0, np.uint8),
        statuses=statuses,
        status_codes=per_row("status_codes", 0, np.uint8),
        reasons=per_row("reasons", 0, np.uint8),
        weights=per_row("weights", 1.0, np.float32),
        columns=columns,
        subject_hashes=per_row("subject_hashes", 0, np.uint64),
        **given,
    )


def numeric_reference(name: str, role: Role = Role.INPUT, **given: Any) -> NumericReference:
    """Return the reference of a standard normal signal."""
    normal = NormalDist()
    edges = np.array([normal.inv_cdf(i / BINS) for i in range(1, BINS)])
    return NumericReference(
        name=name,
        role=role,
        edges=given.pop("edges", edges),
        counts=given.pop("counts", np.full(BINS, 100.0)),
        rows=6400.0,
        missing=0.0,
        infinite=0.0,
        mean=given.pop("mean", 0.0),
        variance=given.pop("variance", 1.0),
        low=given.pop("low", -3.09),
        high=given.pop("high", 3.09),
        least=-4.0,
        most=4.0,
        integer=given.pop("integer", False),
        quantiles=np.linspace(-4, 4, 101),
    )


def profile(
    signals: int = 3, *, digest: str = "p" * 16, embedding: bool = True, model: str = "fraud", **given: Any
) -> Profile:
    """Return a profile of `x0`, `x1`, ... (normal), `color`, `score`, and all inputs together."""
    numbers = [numeric_reference(f"x{i}") for i in range(signals)]
    score = numeric_reference(
        "score",
        Role.OUTPUT,
        edges=np.linspace(0, 1, BINS + 1)[1:-1],
        mean=0.5,
        variance=1 / 12,
        low=0.0,
        high=1.0,
    )
    embeddings = EmbeddingReference(
        name="inputs",
        role=Role.INPUT,
        members=tuple(n.name for n in numbers),
        width=signals,
        features=64,
        gamma=0.5,
        seed=7,
        total=np.zeros(64),
        rows=6400.0,
        sample=np.zeros((0, 2)),
        axes=np.zeros((2, signals)),
    )
    return Profile(
        id=digest,
        model=model,
        version=0,
        created_s=0.0,
        source="made",
        rows=6400,
        numeric=(*numbers, score),
        categories=(
            CategoryReference(
                name="color", role=Role.INPUT, values=COLORS, counts=np.ones(4), rows=4, missing=0
            ),
        ),
        embeddings=(embeddings,) if embedding and signals else (),
        task=given.pop("task", Task(kind=TaskKind.BINARY, score="score", classes=("no", "yes"))),
        **given,
    )


def traffic(rows: int, seed: int, *, signals: int = 3, **given: Any) -> RowBatch:
    """Return a batch that fits `profile`: normal signals, colours, a score."""
    rng = np.random.default_rng(seed)
    columns = [numeric(f"x{i}", rng.normal(size=rows).astype(np.float32)) for i in range(signals)]
    columns.append(category("color", [COLORS[i] for i in rng.integers(0, 3, rows)]))
    columns.append(numeric("score", rng.random(rows).astype(np.float32), Role.OUTPUT))
    columns.extend(given.pop("more", ()))
    given.setdefault("first", seed * 1_000_000)
    return batch(rows, *columns, **given)


@dataclass
class Profiles:
    """A source of profiles by model."""

    by_model: Mapping[str, Profile] = field(default_factory=dict)

    def find(self, model: str, version: int, digest: str) -> Profile | None:
        """Return the model's profile."""
        del version, digest
        return self.by_model.get(model)


def frame(rows: RowBatch, sequence: int, producer: str = "one", epoch: int = 1, **given: Any) -> bytes:
    """Return a batch as the bytes of a frame."""
    return frame_of(rows, Producer(producer, epoch), sequence, **given).data
