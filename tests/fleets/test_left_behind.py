"""What a gateway that was killed left in shared memory, when one is started again."""

from __future__ import annotations

from typing import Final

from gateway.backends.triton.segments import DIRECTORY
from tests.backends.triton.fake import FakeTriton, model
from tests.backends.triton.holder import holding
from tests.fleets.stage import gateway

_KILLED: Final = """
import sys
from gateway.backends.triton.segments import Owner
owner = Owner()
segment = owner.segment(4096)
print(owner.name, segment.name, flush=True)
sys.stdin.readline()
"""


async def test_it_is_removed_at_the_start() -> None:
    """Before any request; what a living one has stays."""
    with holding(_KILLED) as (killed, left), holding(_KILLED) as (_, used):
        killed.kill()
        killed.wait()
        assert all((DIRECTORY / name).exists() for name in (*left, *used))
        async with FakeTriton({"m": model(1)}) as fake:
            fleet = {"name": "f", "endpoints": [str(fake.address)], "serve": ["m"]}
            async with gateway({"triton": [fleet]}):
                assert not any((DIRECTORY / name).exists() for name in left)
                assert all((DIRECTORY / name).exists() for name in used)
        for name in used:
            (DIRECTORY / name).unlink()
