"""A whole gateway in this process, clients of it, and somebody who waits for its models."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import httpx
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gateway.app import Gateway
from gateway.config.schema import GatewayConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from gateway.core.types import VersionState, VersionStatus

PORTS = {"http": 0, "grpc": 0, "metrics": 0, "admin": 0}


class Watcher:
    """A LifecycleObserver that is waited for."""

    def __init__(self) -> None:
        self.states: dict[tuple[str, int], VersionState] = {}
        self._changed = asyncio.Event()

    def on_transition(self, status: VersionStatus) -> None:
        self.states[status.id[:2]] = status.state
        self._changed.set()
        self._changed = asyncio.Event()

    def on_loaded(self, status: VersionStatus, seconds: float) -> None:
        """Take no note."""

    async def until(self, **states: tuple[int, VersionState]) -> None:
        """Wait until a version of each model is in a state."""
        wanted = {(name, number): state for name, (number, state) in states.items()}
        while any(self.states.get(key) is not state for key, state in wanted.items()):
            await self._changed.wait()


class Served:
    """A gateway in this process, its endpoints, and clients of it."""

    def __init__(self, gateway: Gateway, watcher: Watcher, stub: Any, http: httpx.AsyncClient) -> None:
        self.gateway = gateway
        self.watcher = watcher
        self.stub = stub
        self.http = http

    async def infer(self, name: str, *rows: float, version: str = "") -> tuple[list[float], str]:
        """Return the outputs for rows of two equal columns, and the version that answered."""
        request = service_pb2.ModelInferRequest(model_name=name, model_version=version)
        request.inputs.add(name="x", datatype="FP32", shape=[len(rows), 2])
        request.raw_input_contents.append(np.repeat(np.array(rows, np.float32), 2).tobytes())
        answer = await self.stub.ModelInfer(request)
        values = np.frombuffer(answer.raw_output_contents[0], np.float32)
        return values[::2].tolist(), answer.model_version

    async def infer_or_fail(self, name: str, *rows: float) -> None:
        """Ask, whatever comes of it."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self.infer(name, *rows)

    async def admin(self, path: str) -> Any:
        """Return a document of the administration port."""
        answer = await self.http.get(f"http://127.0.0.1:{self.gateway.ports.admin}{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()


@asynccontextmanager
async def gateway(config: Mapping[str, Any]) -> AsyncIterator[Served]:
    """Run a gateway, on free ports, until the context is left; what it loads at start is loaded by then."""
    parsed = GatewayConfig.model_validate({"server": {"ports": PORTS}, **config})
    watcher = Watcher()
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(Gateway(parsed, (watcher,)))
        await running.settled()
        http = await stack.enter_async_context(httpx.AsyncClient())
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{running.ports.grpc}")
        stack.push_async_callback(channel.close)
        yield Served(running, watcher, service_pb2_grpc.GRPCInferenceServiceStub(channel), http)
