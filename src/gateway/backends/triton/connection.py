"""One Triton endpoint over one gRPC channel: inference in bytes, and what else is asked of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from gateway.backends.triton.channel import advice, channel_arguments, credentials, is_local
from gateway.backends.triton.failures import VersionNotThere, of_status, pushback_of
from gateway.backends.triton.queue_reports import counts_of, report
from gateway.backends.triton.shared_memory import Regions
from gateway.backends.triton.unary import PATH, CallFailed, Infer, InferByGrpcio, InferByOurOwn, closed
from gateway.backends.triton.versions import Loaded
from gateway.core.errors import ConfigError, GatewayError
from gateway.core.remote import AttemptError, Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from gateway.backends.remote.connection import QueueReport
    from gateway.backends.triton.channel import Credentials
    from gateway.backends.triton.unary import Dial
    from gateway.backends.triton.versions import Versions
    from gateway.core.remote import Address, FleetOptions

_SERVICE: Final = "/inference.GRPCInferenceService"
_CANNOT_LIST: Final = frozenset(
    {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}
)
_log = logging.getLogger(__name__)


class Asked(NamedTuple):
    """Whom a request is for.

    Attributes:
        loaded: the version on Triton.
        name: the model's public name, for messages.
        metadata: sent with the call.
    """

    loaded: Loaded
    name: str
    metadata: tuple[tuple[str, str], ...] = ()


class Indexed(NamedTuple):
    """One line of an endpoint's repository index; as in Triton's model repository extension."""

    model: str
    version: int
    state: str
    reason: str


class Connector:
    """Makes the connections of one fleet.

    Args:
        options: of the fleet.
        versions: told what each endpoint has.
        dial: makes the clients that infer calls go by; None: they go by gRPC's C core as all others do.

    Raises:
        ConfigError: the TLS files cannot be read.
    """

    def __init__(self, options: FleetOptions, versions: Versions, dial: Dial | None = None) -> None:
        self._options = options
        self._versions = versions
        self._dial = dial
        self._credentials = None if options.tls is None else credentials(options.tls, options.name)

    def __call__(self, address: Address) -> TritonConnection:
        """Return a connection, which connects when it is used; TLS files are read anew."""
        if self._options.tls is not None:
            try:
                self._credentials = credentials(self._options.tls, self._options.name)
            except ConfigError as error:
                _log.warning("%s; those read before stay in use", error)
        return TritonConnection(address, self._options, self._versions, self._credentials, self._dial)


class TritonConnection:
    """A `Connection` to one endpoint; it reconnects by itself. Event loop only.

    Attributes:
        address: of the endpoint.
        regions: its shared memory; None where it is on another host.
    """

    def __init__(
        self,
        address: Address,
        options: FleetOptions,
        versions: Versions,
        secured: Credentials | None = None,
        dial: Dial | None = None,
    ) -> None:
        """Make one; it connects when it is used."""
        self.address = address
        self._versions = versions
        self._tls = options.tls
        arguments = channel_arguments(options)
        if secured is None:
            self._channel = grpc.aio.insecure_channel(str(address), arguments)
        else:
            self._channel = grpc.aio.secure_channel(str(address), secured.channel, arguments)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._infer: Infer = InferByGrpcio(self._channel)
        if dial is not None:
            context = None if secured is None else secured.context
            self._infer = InferByOurOwn(dial(address, PATH, options, context))
        self._stream_infer: Any = self._channel.stream_stream(
            f"{_SERVICE}/ModelStreamInfer", response_deserializer=pb.ModelStreamInferResponse.FromString
        )
        self.regions = Regions(self.register, self.unregister, self.registered) if is_local(address) else None
        self._lists = True
        self._reports = True
        self._counted: dict[Loaded, tuple[int, int, int]] | None = None

    # -- inference -----------------------------------------------------------------------------------------

    async def infer(self, asked: Asked, message: bytes, timeout_s: float | None) -> bytes:
        """Run a serialised ModelInferRequest; return the serialised response. Cancelling cancels the call.

        Raises:
            AttemptError: another endpoint may do better.
            GatewayError: the endpoint's answer.
        """
        try:
            return await self._infer(message, timeout_s, asked.metadata)
        except grpc.aio.AioRpcError as error:
            raise self.failed(asked, error) from error

    async def stream_infer(
        self, asked: Asked, message: bytes, timeout_s: float | None
    ) -> AsyncGenerator[Any, None]:
        """Send one request on a stream of its own; give each ModelStreamInferResponse. Closing cancels it.

        Raises:
            GatewayError: as `infer`. Errors that are responses are given like the others.
        """
        # Never with the metadata `triton_grpc_error`, which would give errors their codes: Triton 2.51 dies
        # when a decoupled model goes on sending after one.
        call = None
        try:
            call = self._stream_infer([message], timeout=timeout_s, metadata=asked.metadata)
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise self.failed(asked, error) from error
        except grpc.aio.UsageError as error:
            raise closed() from error
        finally:
            if call is not None:
                call.cancel()

    def failed(self, asked: Asked, error: grpc.aio.AioRpcError) -> GatewayError:
        """Return what a status means, having taken note if the version is not there."""
        pushback_s = pushback_of(_pairs(error.trailing_metadata()))
        found = of_status(
            error.code(),
            error.details() or "",
            model=asked.loaded.model,
            name=asked.name,
            pushback_s=pushback_s,
        )
        if isinstance(error, CallFailed) and error.sent is not None and isinstance(found, AttemptError):
            found.sent = error.sent
        return self.noted(asked, found)

    def noted(self, asked: Asked, error: GatewayError) -> GatewayError:
        """Return an error, having taken note if it says that the version is not there."""
        if isinstance(error, VersionNotThere):
            self._versions.lose(self.address, asked.loaded)
        return error

    # -- what a fleet asks ---------------------------------------------------------------------------------

    async def ready(self, timeout_s: float) -> None:
        """Ask what the endpoint has ready, and take note of it.

        Whether the whole server calls itself ready is not asked: it does not while any one of its models
        is being loaded or has failed.

        Raises:
            AttemptError: it takes no requests, or has not answered in time.
        """
        try:
            await self._look(timeout_s)
            await self._connect()
        except AttemptError as error:
            if hint := advice(str(error), self._tls):
                raise AttemptError(f"{error}; {hint}", error.outcome, sent=error.sent) from error
            raise

    async def _connect(self) -> None:
        if reason := await self._infer.connect():
            raise AttemptError(reason, Outcome.FAILED, sent=False)

    async def _look(self, timeout_s: float) -> None:
        if self._lists:
            try:
                self._versions.note(self.address, await self._listed(timeout_s))
                return
            except _CannotSay as error:
                self._lists = False
                _log.info("%s does not list its models (%s): each is asked for", self.address, error)
        await self._ask_for_each(timeout_s)

    async def queue_report(self) -> QueueReport | None:
        """Return how long requests waited and ran since the last report, of the models served from here.

        The first one reports nothing: who sent what was counted before is not known.

        Raises:
            AttemptError: it could not be asked.
        """
        if not self._reports:
            return None
        try:
            answer = await self._call("statistics", self._stub.ModelStatistics, pb.ModelStatisticsRequest())
        except _CannotSay:
            self._reports = False
            return None
        before, now = self._counted, counts_of(answer.model_stats)
        self._counted = now
        if before is None:
            return None
        return report(before, {key: now[key] for key in self._versions.watched() if key in now})

    async def aclose(self) -> None:
        """Close; what is under way is cancelled. The endpoint's versions are forgotten."""
        self._versions.forget(self.address)
        if self.regions is not None:
            await self.regions.aclose()
        await self._infer.aclose()
        await self._channel.close()
        if self.regions is not None:
            await self.regions.ended()

    # -- about models --------------------------------------------------------------------------------------

    async def metadata(self, loaded: Loaded, timeout_s: float | None = None) -> Any:
        """Return the ModelMetadataResponse of a version; raises as `infer`."""
        request = pb.ModelMetadataRequest(name=loaded.model, version=str(loaded.version))
        return await self._about(loaded, self._stub.ModelMetadata, request, timeout_s)

    async def config(self, loaded: Loaded, timeout_s: float | None = None) -> Any:
        """Return the ModelConfig of a version; raises as `infer`."""
        request = pb.ModelConfigRequest(name=loaded.model, version=str(loaded.version))
        answer = await self._about(loaded, self._stub.ModelConfig, request, timeout_s)
        return answer.config

    async def index(self, timeout_s: float | None = None, *, ready: bool = False) -> Sequence[Indexed]:
        """Return the repository index; without `ready` Triton lists its repository, which may be slow.

        Raises:
            AttemptError: it could not be asked, or does not say.
        """
        request = pb.RepositoryIndexRequest(ready=ready)
        try:
            answer = await self._call("index", self._stub.RepositoryIndex, request, timeout_s)
        except _CannotSay as error:
            raise AttemptError(str(error), Outcome.FAILED, sent=False) from error
        return [
            Indexed(
                entry.name, int(entry.version) if entry.version.isdigit() else 0, entry.state, entry.reason
            )
            for entry in answer.models
        ]

    async def load(self, model: str, config: str = "", timeout_s: float | None = None) -> None:
        """Load or reload a model; returns when that is done.

        Args:
            model: its name on Triton.
            config: JSON ModelConfig in place of the model's own; empty: that one.
            timeout_s: longest wait.

        Raises:
            AttemptError: it could not be asked, or was not loaded: the message says why.
            GatewayError: the endpoint's answer.
        """
        request = pb.RepositoryModelLoadRequest(model_name=model)
        if config:
            request.parameters["config"].string_param = config
        loaded = Loaded(model, 0)
        await self._about(loaded, self._stub.RepositoryModelLoad, request, timeout_s)

    async def unload(self, model: str, timeout_s: float | None = None) -> None:
        """Unload every version of a model; returns when Triton has begun to. Raises as `load`."""
        request = pb.RepositoryModelUnloadRequest(model_name=model)
        await self._about(Loaded(model, 0), self._stub.RepositoryModelUnload, request, timeout_s)

    async def register(self, region: str, key: str, nbytes: int, timeout_s: float) -> None:
        """Have the endpoint map a POSIX shared memory segment.

        Args:
            region: its name at the endpoint.
            key: the segment's own, `/name`.
            nbytes: its size.
            timeout_s: longest wait.

        Raises:
            GatewayError: it did not.
        """
        request = pb.SystemSharedMemoryRegisterRequest(name=region, key=key, byte_size=nbytes)
        call = self._stub.SystemSharedMemoryRegister
        await self._about(Loaded(region, 0), call, request, timeout_s)

    async def registered(self, timeout_s: float) -> Mapping[str, tuple[str, int]]:
        """Return region -> (key, size) of what the endpoint has mapped; raises as `register`."""
        request = pb.SystemSharedMemoryStatusRequest()
        call = self._stub.SystemSharedMemoryStatus
        answer = await self._about(Loaded("", 0), call, request, timeout_s)
        return {name: (region.key, region.byte_size) for name, region in answer.regions.items()}

    async def unregister(self, region: str, timeout_s: float) -> None:
        """Have the endpoint unmap a region; one that it does not know is no error. Raises as `register`."""
        request = pb.SystemSharedMemoryUnregisterRequest(name=region)
        call = self._stub.SystemSharedMemoryUnregister
        await self._about(Loaded(region, 0), call, request, timeout_s)

    async def _listed(self, timeout_s: float) -> list[Loaded]:
        request = pb.RepositoryIndexRequest(ready=True)
        answer = await self._call("index", self._stub.RepositoryIndex, request, timeout_s)
        return [
            Loaded(entry.name, int(entry.version))
            for entry in answer.models
            if entry.state in {"READY", ""} and entry.version.isdigit()
        ]

    async def _ask_for_each(self, timeout_s: float) -> None:
        """Ask by name for what is watched; at least whether the server lives."""
        live = await self._asked(self._stub.ServerLive, pb.ServerLiveRequest(), timeout_s)
        if not live.live:
            raise AttemptError("it is not live", Outcome.FAILED, sent=False)
        ready = []
        for loaded in self._versions.watched():
            request = pb.ModelReadyRequest(name=loaded.model, version=str(loaded.version))
            try:
                answer = await self._asked(self._stub.ModelReady, request, timeout_s)
            except VersionNotThere:
                continue
            if answer.ready:
                ready.append(loaded)
        self._versions.note(self.address, ready)

    async def _asked(self, method: Any, request: Any, timeout_s: float) -> Any:
        try:
            return await self._call("question", method, request, timeout_s)
        except _CannotSay as error:
            raise AttemptError(str(error), Outcome.FAILED, sent=False) from error

    async def _about(self, loaded: Loaded, method: Any, request: Any, timeout_s: float | None) -> Any:
        """Call a method that is about a model, or about a region; raises as `infer`."""
        try:
            return await method(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise self.failed(Asked(loaded, loaded.model), error) from error
        except grpc.aio.UsageError as error:
            raise closed() from error

    async def _call(self, what: str, method: Any, request: Any, timeout_s: float | None = None) -> Any:
        """Call a method that is about no model.

        Raises:
            AttemptError: it failed.
            _CannotSay: the endpoint does not offer it.
        """
        try:
            return await method(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            code, details = error.code(), error.details() or ""
            if code in _CANNOT_LIST or "is restricted" in details:
                raise _CannotSay(f"{what}: {code.name}") from error
            found = of_status(code, details, model="", name="")
            if isinstance(found, AttemptError):
                raise found from error
            raise AttemptError(str(found), Outcome.FAILED) from error
        except grpc.aio.UsageError as error:
            raise closed() from error


class _CannotSay(Exception):
    """The endpoint does not offer a part of the protocol, or not to us."""


def _pairs(metadata: Any) -> list[tuple[str, str | bytes]]:
    return [(key, value) for key, value in metadata or ()]
