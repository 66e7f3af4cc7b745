"""The router: which version it takes, what it writes down, and that it lets go."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from gateway.core.errors import BackendError, NotFound, Overloaded
from gateway.core.interfaces import Lease, ServedVersion
from gateway.core.pending import Pending
from gateway.core.types import InferRequest, InferResponse, VersionId
from gateway.routing.router import Router
from gateway.testing import EchoService
from tests.telemetry.builders import Catalog, Served, request


@dataclass
class CountedLease:
    """A Lease on version 7 of `digits` that counts its releases."""

    service: EchoService
    version: ServedVersion = field(default_factory=lambda: Served(VersionId("digits", 7, "d")))
    released: int = 0

    def submit(self, request: InferRequest) -> Pending:
        return self.service.submit(request)

    def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        return self.service.stream(request)

    def release(self) -> None:
        self.released += 1


@dataclass
class OneVersion(Catalog):
    """A catalog with that lease alone."""

    held: CountedLease = field(default_factory=lambda: CountedLease(EchoService(held=True)))

    def lease(self, model: str, version: str = "") -> Lease:
        if version not in {"", "7"}:
            raise NotFound(version)
        return self.held


async def test_the_version_chosen_is_written_down_and_held_until_the_answer() -> None:
    """A request that leaves the choice open knows the version it got, also when it fails there."""
    catalog = OneVersion()
    sent = request()
    pending = Router(catalog).submit(sent)
    assert (sent.served_version, catalog.held.released) == (7, 0)
    catalog.held.service.answer(pending, BackendError("x"))
    assert (sent.served_version, catalog.held.released) == (7, 1)


async def test_a_refusal_lets_go_at_once() -> None:
    """What the version refuses still says which version that was; an unknown version chooses none."""
    catalog = OneVersion()
    catalog.held.service.refuse = Overloaded("full")
    sent, lost = request(), request(model_version="9")
    with pytest.raises(Overloaded):
        Router(catalog).submit(sent)
    with pytest.raises(NotFound):
        Router(catalog).submit(lost)
    assert (sent.served_version, lost.served_version, catalog.held.released) == (7, 0, 1)


async def test_a_stream_holds_its_version_until_it_is_closed() -> None:
    """It knows its version from the first step, and lets go however it ends."""
    catalog = OneVersion(held=CountedLease(EchoService()))
    sent = request()
    async with aclosing(Router(catalog).stream(sent)) as responses:  # type: ignore[type-var]
        await anext(responses)
        assert (sent.served_version, catalog.held.released) == (7, 0)
    assert catalog.held.released == 1
