"""Which columns the rows of a run have: the plans of its tensors, made once for each shape."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from gateway.core.errors import ConfigError
from gateway.predlog.redaction import UNPLANNED, ColumnSpec, LoggedTensor, TensorPlan, plan_tensor
from gateway.predlog.ring import Ran
from gateway.predlog.rows import ColumnKind, Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.events import CompletedBatch
    from gateway.core.types import Array, ModelSignature, VersionId
    from gateway.predlog.policy import OutlierRule, Policies
    from gateway.predlog.ring import Rejected

_log = logging.getLogger(__name__)

MAX_LAYOUTS: Final = 1024
"""Layouts remembered; they are made anew when there were more."""

MAX_SHAPES: Final = 8192
"""Shapes remembered, rows included, which fit their layout."""


class TooFewRows(ValueError):
    """A run gave a tensor fewer rows than its requests have."""


class PlannedTensor(NamedTuple):
    """One tensor of a layout.

    Attributes:
        name: of the tensor.
        role: whose it is.
        axis: that counts rows; None: it is shared by all rows of a run.
        plan: what becomes of it.
    """

    name: str
    role: Role
    axis: int | None
    plan: TensorPlan

    def rows_of(self, array: Array, total: int) -> Array:
        """Return its array as `[rows, width]`, a view where it can be one.

        Args:
            array: as run.
            total: rows of a run's requests, where the tensor itself does not count them.
        """
        if self.axis is None:
            flat = array.reshape(1, -1)
            return flat if total == 1 else np.broadcast_to(flat, (total, flat.shape[1]))
        counted = array if self.axis == 0 else np.moveaxis(array, self.axis, 0)
        return counted.reshape(counted.shape[0], -1)


class Layout:
    """The columns of rows that may share a batch of the log.

    Attributes:
        group: equal for layouts of one version with the same columns, whatever their shapes.
        tensors: in the order of their columns.
        segments: names of the segment columns, behind those of the tensors.
        watched: numeric inputs, logged or not, with what is unusual of them.
        counts_rows: the first axis of all of these counts rows.
    """

    __slots__ = ("counts_rows", "group", "segments", "tensors", "watched")

    def __init__(
        self,
        group: int,
        tensors: tuple[PlannedTensor, ...],
        segments: tuple[str, ...],
        watched: tuple[tuple[PlannedTensor, OutlierRule], ...],
    ) -> None:
        self.group = group
        self.watched = watched
        self.tensors = tensors
        self.segments = segments
        self.counts_rows = all(t.axis == 0 for t in (*tensors, *[tensor for tensor, _ in watched]))

    def fits(self, batch: CompletedBatch) -> bool:
        """Whether the tensors of a run have as many rows as its requests."""
        last = batch.members[-1]
        total = last.start_row + last.rows
        inputs, outputs = batch.inputs or {}, batch.outputs or {}
        for name, role, axis, _ in self.tensors:
            shape = (inputs if role is Role.INPUT else outputs)[name].shape
            if axis is not None and (len(shape) <= axis or shape[axis] < total):
                return False
        return True

    def specs(self) -> list[ColumnSpec]:
        """Return all columns in order."""
        specs = [spec for tensor in self.tensors for spec in tensor.plan.specs]
        return specs + [ColumnSpec(name, Role.SEGMENT, ColumnKind.CATEGORY) for name in self.segments]


class Recent:
    """What the last run was like: its tensors are names and shapes, in order.

    Attributes:
        version: that ran.
        layout: of its rows; None: nothing of them may leave.
    """

    __slots__ = ("inputs", "layout", "outputs", "total", "version")

    def __init__(
        self,
        version: VersionId,
        total: int,
        inputs: list[tuple[str, tuple[int, ...]]],
        outputs: list[tuple[str, tuple[int, ...]]],
        layout: Layout | None,
    ) -> None:
        self.version = version
        self.total = total
        self.inputs = inputs
        self.outputs = outputs
        self.layout = layout


def _alike(arrays: Mapping[str, Array], shapes: list[tuple[str, tuple[int, ...]]]) -> bool:
    """Whether arrays have these names and shapes, in this order."""
    if len(arrays) != len(shapes):
        return False
    for place, (name, array) in enumerate(arrays.items()):
        known, shape = shapes[place]
        if name != known or array.shape != shape:
            return False
    return True


def _all_alike(
    held: list[Mapping[str, Array] | None],
    shapes: list[tuple[str, tuple[int, ...]]],
    totals: list[int] | None,
) -> bool:
    """Whether the arrays of all runs have these names and shapes, in any order.

    Args:
        held: each run's.
        shapes: by name.
        totals: the first dimension to be found in each run, where it is not that of `shapes`.
    """
    arrays = [each for each in held if each is not None]
    count = len(held)
    if len(arrays) != count or [len(each) for each in arrays].count(len(shapes)) != count:
        return False
    try:
        for name, shape in shapes:
            found = [each[name].shape for each in arrays]
            if totals is None:
                if found.count(shape) != count:
                    return False
            elif [s[1:] for s in found].count(shape[1:]) != count or [s[0] for s in found] != totals:
                return False
    except (KeyError, IndexError):
        return False
    return True


class Layouts:
    """Finds and remembers layouts. One thread.

    Args:
        policies: what may be logged.
        signatures: of the versions that ran, None where it is not known.
        secret: of keyed hashes.
    """

    def __init__(
        self, policies: Policies, signatures: Mapping[VersionId, ModelSignature | None], secret: bytes
    ) -> None:
        self._policies = policies
        self._signatures = signatures
        self._secret = secret
        self._layouts: dict[object, Layout | None] = {}
        self._fitting: dict[object, Layout | None] = {}
        self._recent: Recent | None = None
        self._groups: dict[object, int] = {}

    def alike(self, entries: list[Ran | Rejected]) -> Recent | None:
        """Return what the last run was like if all entries are runs of its layout; None where it takes more.

        Many small runs are looked at together, which costs a fraction of one look at each. They may differ in
        their number of rows, where every tensor of the layout has just as many.
        """
        recent, count = self._recent, len(entries)
        runs = [entry.batch for entry in entries if isinstance(entry, Ran)]
        if recent is None or len(runs) != count:
            return None
        totals = [last.start_row + last.rows for last in [batch.members[-1] for batch in runs]]
        if [batch.version for batch in runs].count(recent.version) != count:
            return None
        same = totals.count(recent.total) == count
        if not same and recent.layout is not None and not recent.layout.counts_rows:
            return None
        known = None if same else totals
        if _all_alike([batch.inputs for batch in runs], recent.inputs, known) and _all_alike(
            [batch.outputs for batch in runs], recent.outputs, known
        ):
            return recent
        return None

    def of_run(self, entry: Ran) -> Layout | None:
        """Return the layout of a run's rows; None: the policy does not fit the model, nothing may leave.

        Raises:
            TooFewRows: a tensor has fewer rows than the requests of the run.
        """
        batch = entry.batch
        inputs, outputs, last = batch.inputs or {}, batch.outputs or {}, batch.members[-1]
        total, recent = last.start_row + last.rows, self._recent
        # Most runs are like the one before, and comparing in place makes nothing.
        if (
            recent is not None
            and batch.version is recent.version
            and total == recent.total
            and _alike(inputs, recent.inputs)
            and _alike(outputs, recent.outputs)
        ):
            return recent.layout
        ran = [(name, array.shape) for name, array in inputs.items()]
        given = [(name, array.shape) for name, array in outputs.items()]
        shapes = [shape for _, shape in ran + given]
        names = [*inputs, "", *outputs]
        whole = (batch.version, total, *names, *shapes)
        if whole not in self._fitting:
            signature = self._signatures.get(batch.version)
            rests = [_rest(shape, _axis(signature, Role.INPUT, name)[0]) for name, shape in ran]
            rests += [_rest(shape, _axis(signature, Role.OUTPUT, name)[0]) for name, shape in given]
            self._fit(whole, batch, (batch.version, *names, *rests))
        layout = self._fitting[whole]
        self._recent = Recent(batch.version, total, ran, given, layout)
        return layout

    def _fit(self, whole: object, batch: CompletedBatch, key: object) -> None:
        """Note the layout of runs of one shape, if it fits them."""
        inputs, outputs = batch.inputs or {}, batch.outputs or {}
        if key not in self._layouts:
            self._remember(key, batch.version, {Role.INPUT: inputs, Role.OUTPUT: outputs})
        layout = self._layouts[key]
        if layout is not None and not layout.fits(batch):
            raise TooFewRows(f"tensors of {batch.version} have fewer rows than its requests")
        if len(self._fitting) >= MAX_SHAPES:
            self._fitting.clear()
        self._fitting[whole] = layout

    def of_rejected(self, version: VersionId) -> Layout | None:
        """Return the layout of rows that never ran: segments alone."""
        key = (version,)
        if key not in self._layouts:
            self._remember(key, version, {})
        return self._layouts[key]

    def _remember(self, key: object, version: VersionId, arrays: Mapping[Role, Mapping[str, Array]]) -> None:
        if len(self._layouts) >= MAX_LAYOUTS:
            self._layouts.clear()
            self._fitting.clear()
            self._recent = None
        try:
            self._layouts[key] = self._made(version, arrays)
        except ConfigError as error:
            self._layouts[key] = None
            _log.error("%s", error)

    def _made(self, version: VersionId, arrays: Mapping[Role, Mapping[str, Array]]) -> Layout:
        policy, signature = self._policies.of(version.model), self._signatures.get(version)
        if signature is not None:
            policy.check(version.model, signature)
        elif policy.inputs or policy.outputs:
            raise ConfigError(f"prediction_log: {version} went before its policy could be checked")
        tensors: list[PlannedTensor] = []
        widths: list[int] = []
        for role, by_name in arrays.items():
            for name, array in by_name.items():
                axis, varies = _axis(signature, role, name)
                tensor = _described(name, role, array, axis, varies=varies)
                plan = plan_tensor(tensor, policy.rule(role, name), self._secret)
                if plan is not None:
                    tensors.append(PlannedTensor(name, role, axis, plan))
                    widths.append(tensor.width if len(plan.specs) == 1 else 0)
        segments = tuple([segment.name for segment in policy.segments])
        columns = tuple([tensor.plan.specs for tensor in tensors])
        group = self._groups.setdefault((version, columns, tuple(widths)), len(self._groups))
        inputs = arrays.get(Role.INPUT, {})
        watched: list[tuple[PlannedTensor, OutlierRule]] = []
        for rule in policy.outliers:
            if rule.input in inputs and inputs[rule.input].dtype.kind != "O":
                axis, _ = _axis(signature, Role.INPUT, rule.input)
                watched.append((PlannedTensor(rule.input, Role.INPUT, axis, UNPLANNED), rule))
        return Layout(group, tuple(tensors), segments, tuple(watched))


def _described(name: str, role: Role, array: Array, axis: int | None, *, varies: bool) -> LoggedTensor:
    rows = 1 if axis is None else array.shape[axis]
    width = array.size // rows if rows else 0
    return LoggedTensor(name, role, array.dtype, width, varies)


def _rest(shape: tuple[int, ...], axis: int | None) -> tuple[int, ...]:
    """Return what rows of a tensor must have in common to stand below each other."""
    return shape if axis is None else shape[:axis] + shape[axis + 1 :]


def _axis(signature: ModelSignature | None, role: Role, name: str) -> tuple[int | None, bool]:
    """Return the axis that counts a tensor's rows, and whether its width varies."""
    if signature is not None:
        for spec in signature.inputs if role is Role.INPUT else signature.outputs:
            if spec.name == name:
                rest = [size for place, size in enumerate(spec.shape) if place != spec.batch_axis]
                return spec.batch_axis, -1 in rest
    return 0, False
