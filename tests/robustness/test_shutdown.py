"""The end of a real gateway under load: SIGTERM loses nothing, a second one waits for nothing."""

from __future__ import annotations

import pytest

from loadtests.soak_kills import kill_under_load, served, terminate_twice, terminate_under_load
from tests.acceptance.clients import ON_BOTH


@pytest.mark.soak
@ON_BOTH
@pytest.mark.parametrize("lame_duck_s", [0.0, 0.3], ids=["at once", "after a lame-duck wait"])
async def test_sigterm_loses_no_request(lame_duck_s: float, transport: str) -> None:
    """Each client is answered until it is told that the server is going, and the exit code is 0."""
    with served(shutdown={"lame_duck_s": lame_duck_s}, grpc={"transport": transport}) as (server, _):
        ending = await terminate_under_load(server)
        log = server.log
    tally = ending.tally
    assert tally.problems == []
    assert (tally.failed, tally.unanswered, ending.exit_code) == (0, 0, 0), log
    assert "Traceback" not in log


async def test_a_second_sigterm_waits_for_nothing() -> None:
    """A request that never ends holds the first signal up; the second ends the process with exit code 1."""
    with served() as (server, _):
        assert await terminate_twice(server) == 1


@ON_BOTH
async def test_sigkill_gives_no_wrong_answer(transport: str) -> None:
    """However suddenly it ends, every whole answer was right, and none is broken off in the middle."""
    with served(grpc={"transport": transport}) as (server, _):
        tally = await kill_under_load(server)
    assert [p for p in tally.problems if "answered" in p and "version" in p] == []
    assert tally.right >= 200
