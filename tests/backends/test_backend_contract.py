"""Every backend, and the fake that stands in for backends, as Backends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.backends.onnxruntime.backend import OnnxRuntimeBackend
from gateway.core.types import Artifact
from gateway.testing import FakeBackend, identity_signature
from tests.backends.backend_contract import BackendContract, BackendUnderTest
from tests.backends.graphs import identity, save
from tests.backends.triton.fake import FakeTriton, model
from tests.backends.triton.fleets import fleet_of
from tests.backends.triton.under_contract import under_contract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class TestFake(BackendContract):
    """The fake that other parts are tested against."""

    @pytest.fixture
    def subject(self, tmp_path: Path) -> BackendUnderTest:
        backend = FakeBackend(signature=identity_signature(features=2), failures={"bad": "no such layer"})
        good, bad = (Artifact(tmp_path, tmp_path / name, name) for name in ("good", "bad"))
        return BackendUnderTest(backend, good, bad)


class TestOnnxRuntime(BackendContract):
    """ONNX files in this process."""

    @pytest.fixture
    def subject(self, tmp_path: Path) -> BackendUnderTest:
        good, bad = save(tmp_path / "1", identity()), save(tmp_path / "2", b"nonsense")
        return BackendUnderTest(OnnxRuntimeBackend(), good, bad)


class TestTriton(BackendContract):
    """A fleet of two servers; `tests/triton` does the same with a real one."""

    @pytest.fixture
    async def subject(self) -> AsyncIterator[BackendUnderTest]:
        async with (
            FakeTriton({"m": model(1)}) as one,
            FakeTriton({"m": model(1)}) as two,
            fleet_of(one.address, two.address) as scene,
        ):
            yield under_contract(scene, "m")
