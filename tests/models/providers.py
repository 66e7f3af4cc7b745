"""Versions of a registry, from a provider that obeys the test."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.core.options import ModelSpec
from gateway.core.registry import FetchProgress
from gateway.core.types import Artifact, VersionId, VersionOrigin, VersionState
from gateway.models.desired import DesiredVersion

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.core.types import ModelSignature


@dataclass
class FakeProvider:
    """An ArtifactProvider under the test's control.

    Attributes:
        digest: content digest of what it obtains.
        directory: where the files are.
        gate: when set, fetching waits for it.
        verify_gate: when set, verifying waits for it.
        errors: raised by the next attempts, one each.
        contradiction: raised by `narrow`.
        attempts: how often it was asked to obtain.
        cancelled: how many attempts were cancelled.
        pins: contexts entered and not left.
        report: what the last attempt may report to.
    """

    digest: str = "content"
    directory: Path = Path("/nowhere")
    gate: asyncio.Event | None = None
    verify_gate: asyncio.Event | None = None
    errors: list[BaseException] = field(default_factory=list)
    contradiction: Exception | None = None
    attempts: int = 0
    cancelled: int = 0
    pins: int = 0
    report: Callable[[FetchProgress], None] | None = None

    @asynccontextmanager
    async def obtain(self, report: Callable[[FetchProgress], None]) -> AsyncIterator[Artifact]:
        self.attempts += 1
        self.report = report
        report(FetchProgress(state=VersionState.FETCHING, done_bytes=0, total_bytes=None))
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.errors:
                raise self.errors.pop(0)
            report(FetchProgress(state=VersionState.VERIFYING, done_bytes=10, total_bytes=10))
            if self.verify_gate is not None:
                await self.verify_gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.pins += 1
        try:
            yield Artifact(self.directory, self.directory / "model.onnx", self.digest)
        finally:
            self.pins -= 1

    def narrow(self, artifact: Artifact, signature: ModelSignature) -> None:
        assert artifact.digest == self.digest
        if self.contradiction is not None:
            raise self.contradiction


def registered(model: str, number: int, provider: FakeProvider, **spec: object) -> DesiredVersion:
    """Return a version to claim that `provider` gets from a registry."""
    resolved = Artifact(Path(), Path(), f"revision-{number}")
    return DesiredVersion(
        id=VersionId(model, number, f"registered-{number}"),
        artifact=resolved,
        spec=ModelSpec(name=model, backend="fake", **spec),  # type: ignore[arg-type]
        provider=provider,
        origin=VersionOrigin(registry="r", source=f"mlflow://{model}@champion", label=f"v{number}"),
    )
