"""Fleets over fake Tritons, and what runs on them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.backends.remote.fleet import Fleet
from gateway.backends.triton.backend import TritonBackend
from gateway.backends.triton.connection import Connector
from gateway.backends.triton.model import TritonFleet
from gateway.backends.triton.versions import Versions
from gateway.core.clock import LoopClock
from gateway.core.options import LoadOptions, ModelSpec
from gateway.core.remote import FleetOptions, RetryOptions
from gateway.core.types import Artifact, Device

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.backends.triton.model import TritonModel
    from gateway.core.remote import Address, EndpointState, Outcome

NOTHING = Artifact(Path("/nowhere"), Path("/nowhere/none"), "")


@dataclass
class Observed:
    """A RemoteObserver that keeps what it is told.

    Attributes:
        attempts: address and outcome of each.
        decisions: in order.
        endpoints: address and state of each change.
    """

    attempts: list[tuple[Address, Outcome]] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    endpoints: list[tuple[Address, EndpointState]] = field(default_factory=list)

    def on_attempt(self, fleet: str, address: Address, outcome: Outcome, seconds: float) -> None:
        self.attempts.append((address, outcome))

    def on_decision(self, fleet: str, decision: str) -> None:
        self.decisions.append(decision)

    def on_endpoint(self, fleet: str, address: Address, state: EndpointState, reason: str) -> None:
        self.endpoints.append((address, state))


@dataclass
class Scene:
    """A fleet `f` that runs, and a backend for it."""

    fleet: TritonFleet
    backend: TritonBackend
    observed: Observed

    async def load(self, **options: Any) -> TritonModel:
        """Load the model `m` as `digits`."""
        raw = {"fleet": "f", "model": "m", "ready_timeout_s": 20.0, **options}
        spec = ModelSpec(name="digits", backend="triton", backend_options=raw)
        return await self.backend.load(NOTHING, LoadOptions(spec=spec))


@asynccontextmanager
async def fleet_of(*addresses: Address, **options: Any) -> AsyncIterator[Scene]:
    """Run a fleet of these endpoints, each probed once when this is entered."""
    options.setdefault("retry", RetryOptions(budget_floor_per_s=100.0))
    settings = FleetOptions(name="f", endpoints=addresses, slow_start_s=0.0, **options)
    versions, observed, clock = Versions(), Observed(), LoopClock()
    async with Fleet(settings, Connector(settings, versions), clock, observed) as fleet:
        await fleet.wait_probed()
        parts = TritonFleet(fleet, versions, Device("fleet", 0))
        yield Scene(parts, TritonBackend({"f": parts}, clock), observed)
