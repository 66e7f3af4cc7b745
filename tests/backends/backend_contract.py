"""What every Backend and LoadedModel must do, real or fake: a suite to subclass with a fixture."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gateway.core.errors import ModelLoadError
from gateway.core.options import LoadOptions, ModelSpec
from gateway.testing import identity_signature
from tests.backends.graphs import batch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from gateway.core.interfaces import Backend, LoadedModel
    from gateway.core.types import Array, Artifact


@dataclass
class BackendUnderTest:
    """A backend, a version `y = x` over `[rows, 2]` float32, and one that it cannot load.

    Attributes:
        options: of the backend, for the good version.
        bad_options: likewise, for the other.
        device: where its models say that they run.
        instances: how many runs a model allows that is loaded with two; None: that is decided elsewhere.
    """

    backend: Backend
    good: Artifact
    bad: Artifact
    options: Mapping[str, Any] = field(default_factory=dict)
    bad_options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    instances: int | None = 2

    async def load(self) -> LoadedModel:
        """Load the good version."""
        spec = ModelSpec(name="m", backend_options=self.options)
        return await self.backend.load(self.good, LoadOptions(spec=spec, instances=2))

    async def load_bad(self) -> LoadedModel:
        """Try to load the other."""
        spec = ModelSpec(name="bad", backend_options=self.bad_options)
        return await self.backend.load(self.bad, LoadOptions(spec=spec))


def _x(rows: int, start: float = 0.0) -> Array:
    return np.arange(2 * rows, dtype=np.float32).reshape(rows, 2) + np.float32(start)


class BackendContract:
    """The contract; a subclass defines a fixture `subject`."""

    @pytest.fixture
    async def model(self, subject: BackendUnderTest) -> AsyncIterator[LoadedModel]:
        loaded = await subject.load()
        yield loaded
        await loaded.aclose()

    async def test_loaded_model_describes_itself(self, subject: BackendUnderTest, model: LoadedModel) -> None:
        """A loaded model says what it takes, where it runs and how many runs it allows."""
        assert subject.backend.name
        assert subject.backend.platform
        assert model.signature == identity_signature(features=2)
        assert model.signature.batchable
        assert str(model.device) == subject.device
        assert model.instances == (subject.instances or model.instances) > 0
        assert model.memory_bytes >= 0

    async def test_answers_are_the_models(self, model: LoadedModel) -> None:
        """The outputs asked for come back with the values of the model, and times that are not negative."""
        result = await model.infer(batch({"x": _x(3)}, rows=3))
        np.testing.assert_array_equal(result.outputs["y"], _x(3))
        times = (result.compute_input_ns, result.compute_infer_ns, result.compute_output_ns)
        assert min(times) >= 0
        assert sum(times) > 0

    async def test_read_only_inputs_are_taken(self, model: LoadedModel) -> None:
        """A batch's arrays may be read-only."""
        x = _x(2)
        x.flags.writeable = False
        np.testing.assert_array_equal((await model.infer(batch({"x": x}, rows=2))).outputs["y"], x)

    async def test_outputs_outlive_later_runs(self, model: LoadedModel) -> None:
        """A later run, or a change of the inputs after the run, never overwrites an earlier output."""
        x = _x(2)
        first = (await model.infer(batch({"x": x}, rows=2))).outputs["y"]
        x += 50
        for start in range(1, 20):
            await model.infer(batch({"x": _x(2, start)}, rows=2))
        np.testing.assert_array_equal(first, _x(2))

    async def test_concurrent_runs_keep_apart(self, model: LoadedModel) -> None:
        """More runs at once than instances each get their own answer."""
        batches = [batch({"x": _x(1 + n % 3, 100 * n)}, rows=1 + n % 3) for n in range(24)]
        results = await asyncio.gather(*(model.infer(b) for b in batches))
        for given, result in zip(batches, results, strict=True):
            np.testing.assert_array_equal(result.outputs["y"], given.inputs["x"])

    async def test_stream_of_a_plain_model_gives_one_result(self, model: LoadedModel) -> None:
        """Streaming a model that is not decoupled gives its one result."""
        results = [result async for result in model.stream(batch({"x": _x(1)}))]
        assert len(results) == 1
        np.testing.assert_array_equal(results[0].outputs["y"], _x(1))

    async def test_cancelled_run_harms_nobody(self, model: LoadedModel) -> None:
        """After a caller was cancelled, the model answers others and can be closed."""
        running = [asyncio.ensure_future(model.infer(batch({"x": _x(1)}))) for _ in range(6)]
        await asyncio.sleep(0)
        for run in running[::2]:
            run.cancel()
        results = await asyncio.gather(*running, return_exceptions=True)
        assert [isinstance(r, asyncio.CancelledError) for r in results] == [True, False] * 3
        np.testing.assert_array_equal((await model.infer(batch({"x": _x(1, 7)}))).outputs["y"], _x(1, 7))

    async def test_failed_load_says_why_and_disturbs_nobody(
        self, subject: BackendUnderTest, model: LoadedModel
    ) -> None:
        """A version that cannot be loaded raises ModelLoadError with a reason; what is loaded goes on."""
        with pytest.raises(ModelLoadError) as caught:
            await subject.load_bad()
        assert len(str(caught.value)) > 10
        np.testing.assert_array_equal((await model.infer(batch({"x": _x(1)}))).outputs["y"], _x(1))

    async def test_two_loads_are_two_models(self, subject: BackendUnderTest, model: LoadedModel) -> None:
        """Closing one of two models loaded from the same files leaves the other running."""
        other = await subject.load()
        await other.aclose()
        np.testing.assert_array_equal((await model.infer(batch({"x": _x(1)}))).outputs["y"], _x(1))
