"""One interface over the four clients of the tritonclient package, so that one suite runs through each."""

from __future__ import annotations

import asyncio
import threading
from abc import abstractmethod
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.acceptance.process import NATIVE, PATIENCE_S, TRANSPORTS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from tests.acceptance.process import RunningGateway

KINDS: Final = ("http", "grpc", "http.aio", "grpc.aio")
WAYS: Final = tuple(
    (kind, transport)
    for kind in KINDS
    for transport in TRANSPORTS
    if kind.startswith("grpc") or transport == NATIVE
)
"""Each client, and those of gRPC with a gateway on each transport."""
ON_BOTH: Final = pytest.mark.parametrize("transport", TRANSPORTS)
"""Marks what speaks gRPC without one of these clients."""

_HTTP_STATUS: Final = {
    "INVALID_ARGUMENT": "400",
    "NOT_FOUND": "404",
    "UNAVAILABLE": "503",
    "UNIMPLEMENTED": "501",
    "INTERNAL": "500",
    "DEADLINE_EXCEEDED": "504",
}


class Begun(Protocol):
    """An inference under way."""

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the answer, or raise what it ended with."""

    def cancel(self) -> bool:
        """Give it up."""

    def done(self) -> bool:
        """Whether it has ended."""


class Client(Protocol):
    """What the suite needs of a client.

    Attributes:
        transport: `http` or `grpc`.
        api: the tritonclient package whose InferInput and InferRequestedOutput it takes.
    """

    transport: str
    api: Any

    @abstractmethod
    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the client by name and wait for what it returns."""

    @abstractmethod
    def begin(self, model: str, inputs: list[Any], **options: Any) -> Begun:
        """Begin an inference and go on."""

    @abstractmethod
    def close(self) -> None:
        """Close it."""

    def describe(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method that describes something; the answer as JSON, whatever the transport."""
        if self.transport == "grpc":
            options["as_json"] = True
        return self.call(method, *arguments, **options)

    def infer(self, model: str, arrays: Mapping[str, npt.NDArray[Any]], **options: Any) -> Any:
        """Run one inference, binary data both ways; `outputs` may be names."""
        names = options.pop("outputs", None)
        outputs = None if names is None else [self.output(name) for name in names]
        return self.call("infer", model, self.inputs(arrays), outputs=outputs, **options)

    def inputs(self, arrays: Mapping[str, npt.NDArray[Any]], **options: Any) -> list[Any]:
        """Make the inputs of a request; datatypes follow from the arrays."""
        return [self.input(name, array, **options) for name, array in arrays.items()]

    def input(self, name: str, array: npt.NDArray[Any], **options: Any) -> Any:
        """Make one input; the datatype is the array's."""
        made = self.api.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        return made.set_data_from_numpy(array, **options)

    def output(self, name: str, **options: Any) -> Any:
        """Make one requested output."""
        return self.api.InferRequestedOutput(name, **options)

    def compressed(self, algorithm: str) -> dict[str, str]:
        """Return the options that compress a request, and over HTTP its response."""
        if self.transport == "grpc":
            return {"compression_algorithm": algorithm}
        return {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}

    def status(self, code: str) -> str:
        """Return what the client reports for a gRPC code's name."""
        return f"StatusCode.{code}" if self.transport == "grpc" else _HTTP_STATUS[code]

    def head(self, result: Any) -> dict[str, Any]:
        """Return a result's description as JSON."""
        head: dict[str, Any] = (
            result.get_response(as_json=True) if self.transport == "grpc" else result.get_response()
        )
        return head


def refusal(client: Client, call: Callable[[], Any]) -> tuple[str, str]:
    """Return code and message of the refusal that `call` must meet; the code as gRPC names it."""
    try:
        answer = call()
    except InferenceServerException as error:
        status, message = error.status(), error.message()
    else:
        raise AssertionError(f"expected a refusal, got {answer}")
    if client.transport == "grpc":
        return status.removeprefix("StatusCode."), message
    return next((code for code, number in _HTTP_STATUS.items() if number == status), status), message


class SyncHttp(Client):
    """tritonclient.http; each inference that is begun has a thread and a client of its own, as it demands."""

    transport = "http"
    api = tritonclient.http

    def __init__(self, gateway: RunningGateway, timeout_s: float) -> None:
        self._address, self._timeout_s = gateway.http, timeout_s
        self._client = self._open()
        self._threads = ThreadPoolExecutor()

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        return getattr(self._client, method)(*arguments, **options)

    def begin(self, model: str, inputs: list[Any], **options: Any) -> Begun:
        return self._threads.submit(self._infer, model, inputs, options)

    def close(self) -> None:
        self._threads.shutdown()
        self._client.close()

    def _open(self) -> Any:
        return tritonclient.http.InferenceServerClient(self._address, network_timeout=self._timeout_s)

    def _infer(self, model: str, inputs: list[Any], options: dict[str, Any]) -> Any:
        with self._open() as client:
            return client.infer(model, inputs, **options)


class _GrpcBegun(Future[Any]):
    """The answer to come of `async_infer`."""

    def __init__(self, begin: Callable[[Callable[..., None]], Any]) -> None:
        super().__init__()
        self._context = begin(self._ended)

    def cancel(self) -> bool:
        self._context.cancel()
        return True

    def _ended(self, result: Any, error: Exception | None) -> None:
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(result)


class SyncGrpc(Client):
    """tritonclient.grpc."""

    transport = "grpc"
    api = tritonclient.grpc

    def __init__(self, gateway: RunningGateway, timeout_s: float) -> None:
        self._client = tritonclient.grpc.InferenceServerClient(gateway.grpc)
        self._timeout_s = timeout_s

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        return getattr(self._client, method)(*arguments, client_timeout=self._timeout_s, **options)

    def begin(self, model: str, inputs: list[Any], **options: Any) -> Begun:
        options["client_timeout"] = self._timeout_s
        return _GrpcBegun(lambda ended: self._client.async_infer(model, inputs, ended, **options))

    def close(self) -> None:
        self._client.close()


class LoopThread:
    """An event loop in a thread of its own; what still runs on it is cancelled when it is closed."""

    def __init__(self) -> None:
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()))
        self._thread.start()
        self._loop = self._started.result()

    def begin(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Start a coroutine there."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _live(self) -> None:
        self._stop = asyncio.Event()
        self._started.set_result(asyncio.get_running_loop())
        await self._stop.wait()


class AioClient(Client):
    """One of the two asyncio clients, on a loop of its own."""

    def __init__(self, transport: str, open_client: Callable[[], Any], options: Mapping[str, Any]) -> None:
        self.transport = transport
        self.api = tritonclient.http if transport == "http" else tritonclient.grpc
        self._options = options
        self._loop = LoopThread()
        self._client = self._loop.begin(self._opened(open_client)).result()

    @classmethod
    def http(cls, gateway: RunningGateway, timeout_s: float) -> Self:
        """Open tritonclient.http.aio."""
        api = tritonclient.http.aio
        return cls("http", lambda: api.InferenceServerClient(gateway.http, conn_timeout=timeout_s), {})

    @classmethod
    def grpc(cls, gateway: RunningGateway, timeout_s: float) -> Self:
        """Open tritonclient.grpc.aio."""
        api = tritonclient.grpc.aio
        return cls("grpc", lambda: api.InferenceServerClient(gateway.grpc), {"client_timeout": timeout_s})

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self.begin_call(method, *arguments, **options).result()

    def begin(self, model: str, inputs: list[Any], **options: Any) -> Begun:
        return self.begin_call("infer", model, inputs, **options)

    def begin_call(self, method: str, *arguments: Any, **options: Any) -> Begun:
        """Begin a call of any method and go on."""
        return self._loop.begin(getattr(self._client, method)(*arguments, **options, **self._options))

    def close(self) -> None:
        self._loop.begin(self._client.close()).result()
        self._loop.close()

    @staticmethod
    async def _opened(open_client: Callable[[], Any]) -> Any:
        return open_client()


_OPEN: Final[Mapping[str, Callable[[RunningGateway, float], Client]]] = {
    "http": SyncHttp,
    "grpc": SyncGrpc,
    "http.aio": AioClient.http,
    "grpc.aio": AioClient.grpc,
}


@contextmanager
def connected(kind: str, gateway: RunningGateway, timeout_s: float = PATIENCE_S) -> Iterator[Client]:
    """Open one of the four clients; no call of it takes longer than `timeout_s`."""
    with ExitStack() as stack:
        client = _OPEN[kind](gateway, timeout_s)
        stack.callback(client.close)
        yield client


CANCELLED: Final = (CancelledError, InferenceServerException)
"""What a client raises for an inference that was cancelled."""


def floats(*rows: Sequence[float]) -> npt.NDArray[np.float32]:
    """Return a FP32 array of these rows."""
    return np.array(rows, np.float32)
