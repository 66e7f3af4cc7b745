"""Which loaded models give way: least recently used first, and only as many as are needed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.core.types import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """One lazy model that is loaded.

    Attributes:
        model: its name.
        used_s: when it was last used, in seconds of any one clock.
        busy: some request needs it now.
        memory: bytes its versions hold, by device.
    """

    model: str
    used_s: float
    busy: bool = False
    memory: Mapping[Device, int] = field(default_factory=dict)


class Eviction(NamedTuple):
    """What giving way comes to.

    Attributes:
        models: to be unloaded now, least recently used first.
        enough: that covers what is short.
        possible: it would be covered if those that are busy were idle.
    """

    models: tuple[str, ...]
    enough: bool
    possible: bool


def eviction(residents: Iterable[Resident], short: Mapping[Device, int]) -> Eviction:
    """Choose the models to unload so that `short` bytes become free on each device.

    Nobody is chosen who holds nothing on a device that is still short, nor anybody at all when even all of
    them together would not do.

    Args:
        residents: what is loaded and may be unloaded.
        short: device -> bytes that are missing.
    """
    everyone = sorted(residents, key=lambda r: (r.used_s, r.model))
    if any(sum(r.memory.get(device, 0) for r in everyone) < missing for device, missing in short.items()):
        return Eviction((), enough=False, possible=False)
    missing = {device: nbytes for device, nbytes in short.items() if nbytes > 0}
    chosen: list[str] = []
    for resident in everyone:
        if not missing:
            break
        if resident.busy or not any(resident.memory.get(device) for device in missing):
            continue
        chosen.append(resident.model)
        missing = {
            device: nbytes - held
            for device, nbytes in missing.items()
            if nbytes > (held := resident.memory.get(device, 0))
        }
    return Eviction(tuple(chosen), enough=not missing, possible=True)
