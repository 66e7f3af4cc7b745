"""The hot call, ModelInfer in bytes: by gRPC's C core, or by a client of our own that is handed in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import grpc
import grpc.aio

from gateway.core.remote import AttemptError, Outcome

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from gateway.core.remote import Address, FleetOptions

    Metadata = Sequence[tuple[str, str]]

PATH: Final = "/inference.GRPCInferenceService/ModelInfer"

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class UnaryEnd(Protocol):
    """How a call ended."""

    @property
    def code(self) -> int:
        """The gRPC status as an integer."""

    @property
    def details(self) -> str:
        """Its text."""

    @property
    def body(self) -> bytes:
        """The answer; empty unless the code is 0."""

    @property
    def metadata(self) -> Metadata:
        """The trailing metadata, without binary entries."""

    @property
    def sent(self) -> bool | None:
        """Whether the endpoint may have begun with it; None: it has given this status itself."""


class UnaryClient(Protocol):
    """Calls one method of one endpoint; connects when it is used."""

    async def call(self, message: bytes, timeout_s: float | None, metadata: Metadata = ()) -> UnaryEnd:
        """Call it; cancelling calls the call off. Raises for no failure of the endpoint."""

    async def connect(self) -> str:
        """Wait until there is a connection; return why there is none, in the end."""

    async def aclose(self) -> None:
        """Close; what is under way fails."""


class Dial(Protocol):
    """Makes the clients of endpoints."""

    def __call__(
        self, address: Address, path: str, options: FleetOptions, tls: ssl.SSLContext | None
    ) -> UnaryClient:
        """Return a client of the method of that path, which connects when it is used."""


class CallFailed(grpc.aio.AioRpcError):
    """A call by our own client ended with a status.

    Attributes:
        sent: as `UnaryEnd.sent`.
    """

    def __init__(self, end: UnaryEnd) -> None:
        code = _CODES.get(end.code, grpc.StatusCode.UNKNOWN)
        super().__init__(code, grpc.aio.Metadata(), grpc.aio.Metadata(*end.metadata), end.details)
        self.sent = end.sent


class Infer(Protocol):
    """ModelInfer of one endpoint."""

    async def __call__(self, message: bytes, timeout_s: float | None, metadata: Metadata) -> bytes:
        """Return the serialised answer; cancelling calls the call off.

        Raises:
            grpc.aio.AioRpcError: it failed; a `CallFailed` knows whether it was sent.
            AttemptError: the client was closed before.
        """

    async def connect(self) -> str:
        """Wait until there is a connection, where it has one of its own; return why there is none."""

    async def aclose(self) -> None:
        """Close what is its own."""


class InferByGrpcio:
    """On a channel of grpc.aio, which is its owner's."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        # Messages stay bytes here: codec.py tells what that saves.
        self._call: Any = channel.unary_unary(PATH)

    async def __call__(self, message: bytes, timeout_s: float | None, metadata: Metadata) -> bytes:
        """As `Infer`."""
        try:
            answer: bytes = await self._call(message, timeout=timeout_s, metadata=metadata)
        except grpc.aio.UsageError as error:
            raise closed() from error
        return answer

    async def connect(self) -> str:
        """Say that there is a connection: probes go over the same."""
        return ""

    async def aclose(self) -> None:
        """Leave the channel to its owner."""


class InferByOurOwn:
    """By a client that was handed in."""

    def __init__(self, client: UnaryClient) -> None:
        self._client = client

    async def __call__(self, message: bytes, timeout_s: float | None, metadata: Metadata) -> bytes:
        """As `Infer`."""
        end = await self._client.call(message, timeout_s, metadata)
        if end.code == 0:
            return end.body
        if end.code == _CANCELLED and end.sent is False:
            raise closed()
        raise CallFailed(end)

    async def connect(self) -> str:
        """As `Infer`."""
        return await self._client.connect()

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()


_CANCELLED: Final = 1


def closed() -> AttemptError:
    """Return the error of a call on a connection that was closed before."""
    return AttemptError("the connection was closed", Outcome.CANCELLED, sent=False)
