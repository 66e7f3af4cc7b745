"""What loading a version will cost: remembered from the last load of the same content, else estimated."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final, TypeAlias

from gateway.core.types import CPU, Device

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.options import ModelSpec

Cost: TypeAlias = "Mapping[Device, int]"
"""Bytes by device."""

REMEMBERED: Final = 4096
"""Contents whose cost is remembered; a few hundred bytes each."""
FIRST_FACTOR: Final = 1.2
"""Bytes held per byte of file, as long as nothing has been learnt."""
_SAMPLES: Final = 64
_PESSIMISM: Final = 0.9
"""Which of the last ratios, from the smallest to the largest, new content is expected to have."""


class Costs:
    """Learns from loads what the next one will take. Not bound to any clock or thread.

    Args:
        assumed: where an instance group runs whose device its backend chooses, until a load has shown it.
    """

    def __init__(self, assumed: Device = CPU) -> None:
        self._assumed = assumed
        self._known: OrderedDict[str, Cost] = OrderedDict()
        self._ratios: deque[float] = deque(maxlen=_SAMPLES)

    @property
    def factor(self) -> float:
        """Bytes that a version is expected to hold on a device per byte of its files."""
        if not self._ratios:
            return FIRST_FACTOR
        ranked = sorted(self._ratios)
        return ranked[int(_PESSIMISM * (len(ranked) - 1))]

    def remembered(self, content: str) -> Cost | None:
        """Return what loading that content took the last times, None when that is not known."""
        return self._known.get(content)

    def estimated(self, spec: ModelSpec, file_bytes: int) -> Cost:
        """Return what content never loaded before is expected to take: it is held once per instance group."""
        cost: dict[Device, int] = {}
        expected = round(file_bytes * self.factor)
        for device in self._devices(spec):
            cost[device] = cost.get(device, 0) + expected
        return cost

    def learn(
        self, content: str, spec: ModelSpec, file_bytes: int, memory: Sequence[tuple[Device, int]]
    ) -> None:
        """Remember what a load of `content` has taken.

        Of several measurements the smallest counts: what else the process did meanwhile only adds to it.
        """
        cost = dict(memory)
        before = self._known.pop(content, None)
        if before is not None and before.keys() == cost.keys():
            cost = {device: min(nbytes, before[device]) for device, nbytes in cost.items()}
        self._known[content] = cost
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        if file_bytes and cost:
            self._ratios.append(sum(cost.values()) / (file_bytes * len(self._devices(spec))))

    def _devices(self, spec: ModelSpec) -> Sequence[Device]:
        return [group.device or self._assumed for group in spec.instances] or [self._assumed]
