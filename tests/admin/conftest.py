"""An administration port over a real manager and a real source, whose registry and backend are fakes."""

from __future__ import annotations

import dataclasses
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from gateway.admin.routes import AdminParts, admin_routes
from gateway.api.errors import ErrorTranslator
from gateway.protocol.status import StatusProfile
from gateway.registry.provider import ArtifactRules
from gateway.registry.verification.policy import SignatureReport
from gateway.testing import settle
from gateway.transport.http import HttpServer
from gateway.transport.options import HttpServerOptions
from tests.models.stage import Stage
from tests.registry.fakes import TURNS, Rig, published, sourced
from tests.transport.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from gateway.core.options import ModelSpec
    from gateway.models.manager import ModelManager
    from tests.transport.wire import Received


def served_by_fake(spec: ModelSpec) -> ModelSpec:
    return dataclasses.replace(spec, backend="fake")


class Signed:
    """A SignatureCheck that finds everything in order."""

    def check(self, directory: Path, files: Mapping[str, str]) -> SignatureReport:
        return SignatureReport(signed=True, by="key 12:34", detail=f"{len(files)} files")


@dataclass
class Admin:
    """The administration port and what is behind it.

    Attributes:
        rig: the registry `prod`, whose model `fraud` is served as `fraud`.
        stage: the backend.
        manager: what is served.
        wire: a connection to the port.
    """

    rig: Rig
    stage: Stage
    manager: ModelManager
    wire: Wire

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Received:
        """Send a request; a header's `_` stands for `-`."""
        fields = {"host": "h", "content-length": str(len(body)), **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        self.wire.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        return await self.wire.response()

    async def get(self, path: str) -> Any:
        """Return a page that must be there."""
        received = await self.ask("GET", path)
        assert received.status == 200, received.body
        return json.loads(received.body)

    async def load(self) -> None:
        """Load what the registry names now."""
        self.manager.apply(self.rig.source.name, self.rig.source.wanted())
        await settle(TURNS)


@asynccontextmanager
async def administration(directory: Path, **parts: Any) -> AsyncIterator[Admin]:
    """Serve the administration port; `parts` are further fields of AdminParts."""
    rig = published(Rig(directory, sourced(adjust=served_by_fake), rules=ArtifactRules(signatures=Signed())))
    stage = Stage()
    await rig.start()
    async with stage.manager() as manager:
        made = AdminParts(
            catalog=manager,
            version="1.2.3",
            guard=ErrorTranslator(StatusProfile.DEFAULT).http,
            registries=[rig.source],
            wall_s=rig.wall,
            **parts,
        )
        server = HttpServer(admin_routes(made), HttpServerOptions(port=0))
        await server.start()
        wire = await Wire.open(server.port)
        try:
            yield Admin(rig, stage, manager, wire)
        finally:
            wire.close()
            await server.stop(0.0)
            await rig.stop()


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    """A port without webhooks."""
    async with administration(tmp_path) as served:
        yield served
