"""Mutated messages against a real gateway: a small fraction of those of `make soak`, the same every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from loadtests.soak_fuzz import Mutator, fuzz, http_seeds, rpc_seeds
from loadtests.soak_grpc import channel, unary
from loadtests.soak_http import HttpConnection
from tests.acceptance.clients import ON_BOTH

if TYPE_CHECKING:
    from loadtests.soak_server import GatewayProcess

MESSAGES = 1000
"""Over each protocol; `make soak` sends about a hundred times as many."""


@pytest.mark.soak
@ON_BOTH
async def test_mutated_messages_are_answered(gateway: GatewayProcess) -> None:
    """No mutation gets a 500, an INTERNAL or silence, and some still work."""
    report = await fuzz(gateway, MESSAGES, seed=7)
    assert report.problems == []
    assert report.answers["OK"]
    assert report.answers["200"]
    assert "Traceback" not in gateway.log


@ON_BOTH
async def test_the_messages_mutated_are_good_ones(gateway: GatewayProcess) -> None:
    """What mutations start from is answered well: otherwise they would test one refusal over and over."""
    for data in http_seeds():
        async with HttpConnection(gateway.http_port) as connection:
            assert (await connection.exchange(data)).status == 200, data
    async with channel(gateway.grpc_port) as over:
        for method, message in rpc_seeds():
            await unary(over, method)(message)


def test_mutations_repeat() -> None:
    """The same seed gives the same messages, so that a finding can be found again."""
    seed = http_seeds()[0]
    once, again, other = Mutator(1), Mutator(1), Mutator(2)
    first = [once(seed) for _ in range(50)]
    assert first == [again(seed) for _ in range(50)]
    assert first != [other(seed) for _ in range(50)]
