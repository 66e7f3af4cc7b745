"""Models and batchers that fail to close: nothing else is left open, and the manager goes on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.core.options import InstanceGroup
from gateway.core.types import VersionState
from gateway.testing import FakeLoadedModel, settle
from tests.models.stage import Stage, wanted

if TYPE_CHECKING:
    import pytest

    from gateway.core.options import LoadOptions
    from gateway.core.types import Artifact


class BadClose(FakeLoadedModel):
    """A model that frees itself and fails."""

    async def aclose(self) -> None:
        await super().aclose()
        raise RuntimeError("the device was lost while the session was destroyed")


def bad_close(_artifact: Artifact, _options: LoadOptions) -> FakeLoadedModel:
    return BadClose()


async def test_failing_close_of_a_withdrawn_load_ends_only_that_version(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """A load withdrawn under way whose model fails to close ends UNLOADED; the manager serves on."""
    stage.backend.make = bad_close
    stage.backend.gate = asyncio.Event()
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1, instances=(InstanceGroup(), InstanceGroup()))])
        await settle()
        manager.apply("s", [])
        stage.backend.gate.set()
        await manager.wait_settled()
        assert [s.state for s in manager.index()] == [VersionState.UNLOADED]
        assert [m.closed for m in stage.backend.loaded] == [True, True]
        assert "the device was lost" in caplog.text
        stage.backend.make = None
        manager.apply("s", [wanted("n", 1)])
        await manager.wait_settled()
        assert manager.is_model_ready("n")


async def test_failing_close_leaves_no_other_replica_open(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """When the first replica of an unloaded version fails to close, the others are closed all the same."""
    stage.backend.make = bad_close
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1, instances=(InstanceGroup(), InstanceGroup()))])
        await manager.wait_settled()
        manager.apply("s", [])
        await manager.wait_settled()
        assert [m.closed for m in stage.backend.loaded] == [True, True]
        assert all(batcher.closed for batcher in stage.batchers)
        assert "the device was lost" in caplog.text
