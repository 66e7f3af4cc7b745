"""Version swaps under load: five of each kind, paced by the versions' own readiness."""

from __future__ import annotations

import pytest

from loadtests.soak_kills import served
from loadtests.soak_swaps import swap
from tests.acceptance.clients import ON_BOTH

SWAPS = 5
"""`make soak` swaps every two seconds for two minutes."""


@pytest.mark.soak
@ON_BOTH
@pytest.mark.parametrize("mode", ["poll", "explicit"])
async def test_no_request_fails_by_a_swap(mode: str, transport: str) -> None:
    """While versions are replaced one after the other, every request is answered, and by one version."""
    with served(mode=mode, grpc={"transport": transport}) as (server, directory):
        tally = await swap(server, directory / "repository", SWAPS)
        log = server.log
    assert tally.problems == []
    assert (tally.failed, tally.refused, tally.unanswered) == (0, 0, 0), log
    assert set(tally.versions) == {str(version) for version in range(1, SWAPS + 2)}
