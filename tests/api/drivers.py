"""The other side of the seams: calls, streams and HTTP exchanges driven by a test, and a catalog."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from gateway.core.calls import (
    Buffer,
    Headers,
    HttpRequest,
    HttpResponse,
    HttpRoute,
    RpcFailure,
    RpcService,
    RpcStatus,
)
from gateway.core.errors import GatewayError, InvalidRequest, NotFound, NotReady
from gateway.core.options import ModelSpec
from gateway.core.statistics import VersionStatistics
from gateway.core.types import (
    CPU,
    Datatype,
    Device,
    ModelSignature,
    TensorSpec,
    VersionId,
    VersionState,
    VersionStatus,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

ROWS = ModelSignature(
    (TensorSpec("x", Datatype.FP32, (-1, 2)),),
    (TensorSpec("x", Datatype.FP32, (-1, 2)),),
)
DECOUPLED = ModelSignature(ROWS.inputs, ROWS.outputs, decoupled=True)


@dataclass
class Served:
    """A ServedVersion."""

    id: VersionId
    spec: ModelSpec
    signature: ModelSignature = ROWS
    platform: str = "onnxruntime_onnx"
    statistics: VersionStatistics = field(default_factory=VersionStatistics)
    devices: Sequence[tuple[Device, int]] = ((CPU, 1),)
    memory: Sequence[tuple[Device, int]] = ()
    label: str = ""


class Catalog:
    """A ModelCatalog of versions that the test puts there and moves from state to state."""

    def __init__(self) -> None:
        self.versions: dict[tuple[str, int], tuple[Served, VersionState]] = {}
        self.ready = True

    def put(
        self,
        model: str,
        number: int = 1,
        *,
        state: VersionState = VersionState.READY,
        signature: ModelSignature = ROWS,
        labels: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Served:
        served = Served(
            VersionId(model, number, "digest"),
            ModelSpec(name=model, labels=labels or {}, max_batch_size=8),
            signature,
        )
        self.versions[model, number] = (served, state)
        return served

    def get(self, model: str, version: str = "") -> Served:
        numbers = self.ready_versions(model)
        if not version:
            if not numbers:
                raise NotReady(f"Request for unknown model: '{model}' has no available versions")
            return self.versions[model, numbers[-1]][0]
        if not version.isdigit() or int(version) == 0:
            raise InvalidRequest(f"invalid model version '{version}' for model '{model}'")
        if (model, int(version)) not in self.versions:
            raise NotFound(f"Request for unknown model: '{model}' version {version} is not found")
        if int(version) not in numbers:
            raise NotReady(f"'{model}' version {version} is not at ready state")
        return self.versions[model, int(version)][0]

    def lease(self, model: str, version: str = "") -> Any:
        raise AssertionError("the protocol's methods take no leases")

    def ready_versions(self, model: str) -> list[int]:
        if not any(name == model for name, _ in self.versions):
            raise NotFound(f"Request for unknown model: '{model}' is not found")
        return sorted(
            number
            for (name, number), (_, state) in self.versions.items()
            if name == model and state is VersionState.READY
        )

    def served(self) -> list[Served]:
        return [s for _, (s, state) in sorted(self.versions.items()) if state is VersionState.READY]

    def index(self) -> list[VersionStatus]:
        return [
            VersionStatus(id=served.id, state=state, reason="" if state is VersionState.READY else "unloaded")
            for _, (served, state) in sorted(self.versions.items())
        ]

    def is_ready(self) -> bool:
        return self.ready

    def is_model_ready(self, model: str, version: str = "") -> bool:
        self.ready_versions(model)
        try:
            self.get(model, version)
        except NotReady:
            return False
        return True


class Repository:
    """A RepositoryControl that keeps what it was asked, and refuses when told."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.refuse: GatewayError | None = None

    async def load(self, model: str, config: str = "", files: Mapping[str, bytes] | None = None) -> None:
        self.asked.append(("load", model, config, files))
        if self.refuse:
            raise self.refuse

    async def unload(self, model: str) -> None:
        self.asked.append(("unload", model))
        if self.refuse:
            raise self.refuse


class UnaryCall:
    """An RpcCall whose answer the test waits for."""

    def __init__(
        self, message: Buffer, metadata: Mapping[str, str] | None = None, deadline_s: float | None = None
    ) -> None:
        self.message = message
        self.metadata = metadata or {}
        self.deadline_s = deadline_s
        self.arrived_s = 1000.0
        self.peer = "test"
        self.cancel_callbacks: list[Callable[[], object]] = []
        self.answers: list[tuple[bytes, Headers] | RpcStatus] = []
        self.answered = asyncio.Event()

    def reply(self, message: bytes, trailers: Headers = ()) -> None:
        self.answers.append((message, trailers))
        self.answered.set()

    def fail(self, status: RpcStatus) -> None:
        self.answers.append(status)
        self.answered.set()

    def on_cancel(self, callback: Callable[[], object]) -> None:
        self.cancel_callbacks.append(callback)

    async def outcome(self) -> tuple[bytes, Headers]:
        """Return the reply and its trailers, or raise the status; there must be one answer exactly."""
        await self.answered.wait()
        (answer,) = self.answers
        if isinstance(answer, RpcStatus):
            raise RpcFailure(answer)
        return answer


async def call(service: RpcService, method: str, message: bytes, **fields: Any) -> bytes:
    """Make a unary call; a status is raised as RpcFailure."""
    unary = UnaryCall(message, **fields)
    if method in service.begin:
        service.begin[method](unary)
        return (await unary.outcome())[0]
    return await service.unary[method](unary)


class StreamCall:
    """An RpcStream with the client's side in the test's hands.

    Attributes:
        writable: cleared, `send` waits, as for a client that does not read.
        read: messages that the server has taken.
    """

    def __init__(self, metadata: Mapping[str, str] | None = None, deadline_s: float | None = None) -> None:
        self.metadata = metadata or {}
        self.deadline_s = deadline_s
        self.peer = "test"
        self.writable = asyncio.Event()
        self.writable.set()
        self.read = 0
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._responses: asyncio.Queue[bytes] = asyncio.Queue()

    async def _iterate(self) -> AsyncIterator[Buffer]:
        while (message := await self._requests.get()) is not None:
            self.read += 1
            yield message

    def __aiter__(self) -> AsyncIterator[Buffer]:
        return self._iterate()

    async def send(self, message: bytes) -> None:
        await self.writable.wait()
        self._responses.put_nowait(message)

    def write(self, *messages: bytes) -> None:
        """Send request messages."""
        for message in messages:
            self._requests.put_nowait(message)

    def half_close(self) -> None:
        """Send no more."""
        self._requests.put_nowait(None)

    async def receive(self) -> bytes:
        """Return the next response message."""
        return await self._responses.get()

    def received(self) -> list[bytes]:
        """Return the response messages that are there, without waiting."""
        return [self._responses.get_nowait() for _ in range(self._responses.qsize())]


@dataclass
class Reply:
    """A whole HTTP response as a client sees it."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class HttpDriver:
    """Finds the route as a transport does (first match in the table's order) and runs it."""

    def __init__(self, routes: Sequence[HttpRoute]) -> None:
        self.routes = routes
        self._patterns = [
            (re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", route.pattern)), route) for route in routes
        ]

    def find(self, method: str, path: str) -> tuple[HttpRoute, Mapping[str, str]]:
        for pattern, route in self._patterns:
            if route.method == method and (match := pattern.fullmatch(path)):
                return route, match.groupdict()
        raise AssertionError(f"no route for {method} {path}")

    def request(
        self, method: str, path: str, body: Buffer = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[HttpRoute, HttpRequest]:
        route, params = self.find(method, path)
        return route, HttpRequest(method, path, params, "", headers or {}, body, 1000.0)

    async def respond(
        self, method: str, path: str, body: Buffer = b"", headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        route, request = self.request(method, path, body, headers)
        if route.handler is not None:
            return await route.handler(request)
        assert route.begin is not None
        replies: asyncio.Queue[HttpResponse] = asyncio.Queue()
        route.begin(request, replies.put_nowait)
        response = await replies.get()
        assert replies.empty()
        return response

    async def fetch(
        self, method: str, path: str, body: Buffer = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        response = await self.respond(method, path, body, headers)
        content = b"".join(bytes(part) for part in response.body)
        if response.stream is not None:
            content += b"".join([part async for part in response.stream])
        sent = {name.lower(): value for name, value in response.headers}
        return Reply(response.status, content, {"content-type": response.content_type, **sent})
