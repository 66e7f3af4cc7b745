"""Generates a closed loop over gRPC: one channel, as many unary calls under way as asked for."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import grpc

from gateway._proto import open_inference_pb2 as pb
from gateway.commands.client import parse_metadata, unreachable
from gateway.commands.failure import CommandFailed
from gateway.commands.samples import sample_tensor
from gateway.commands.wire import raw_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.commands.client import Address, ModelMetadata
    from gateway.commands.samples import SampleOptions
    from gateway.commands.tally import Load, LoadRun
    from gateway.core.types import Tensor

_SERVICE: Final = "/inference.GRPCInferenceService"
_OPTIONS: Final = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_TIMEOUT_S: Final = 60.0


def prepare_grpc(address: Address, model: str, version: str, samples: SampleOptions) -> LoadRun:
    """Build the request and send it once, so that a model that refuses it says so before the run.

    Raises:
        CommandFailed: no gateway, no such model, or the request was refused.
    """
    target = f"{address.host}:{address.port}"
    with _channel(target, secure=address.secure) as channel:
        answer = _call(channel, "ModelMetadata", pb.ModelMetadataRequest(name=model, version=version))
        metadata = _metadata(pb.ModelMetadataResponse.FromString(answer))
        tensors = [sample_tensor(spec, samples) for spec in metadata.inputs]
        request = _infer_request(model, version, tensors)
        _call(channel, "ModelInfer", request)
    return _Run(target, request.SerializeToString(), secure=address.secure)


def _channel(target: str, *, secure: bool) -> grpc.Channel:
    if secure:
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(), options=_OPTIONS)
    return grpc.insecure_channel(target, options=_OPTIONS)


def _call(channel: grpc.Channel, method: str, request: Any) -> bytes:
    call: Any = channel.unary_unary(f"{_SERVICE}/{method}")
    try:
        answer: bytes = call(request.SerializeToString(), timeout=_TIMEOUT_S)
    except grpc.RpcError as exc:
        if exc.code() is grpc.StatusCode.UNAVAILABLE:
            raise unreachable("the gRPC port", exc.details() or "unavailable") from exc
        raise CommandFailed(f"the server answered {exc.code().name}: {exc.details()}") from exc
    return answer


def _metadata(answer: pb.ModelMetadataResponse) -> ModelMetadata:
    tensors = {
        key: [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in getattr(answer, key)]
        for key in ("inputs", "outputs")
    }
    return parse_metadata(
        {"name": answer.name, "versions": answer.versions, "platform": answer.platform, **tensors}
    )


def _infer_request(model: str, version: str, tensors: Sequence[Tensor]) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, model_version=version)
    for tensor in tensors:
        request.inputs.add(name=tensor.name, datatype=tensor.datatype.value, shape=tensor.array.shape)
        request.raw_input_contents.append(raw_bytes(tensor))
    return request


class _Run:
    """A LoadRun."""

    def __init__(self, target: str, request: bytes, *, secure: bool) -> None:
        self._target = target
        self._request = request
        self._secure = secure

    async def __call__(self, load: Load) -> None:
        """Keep the calls going until the time is up and the last ones are answered."""
        until_s = time.perf_counter() + load.seconds
        async with self._channel() as channel:
            infer: Any = channel.unary_unary(f"{_SERVICE}/ModelInfer")
            async with asyncio.TaskGroup() as group:
                for _ in range(load.concurrency):
                    group.create_task(self._loop(infer, load, until_s))

    def _channel(self) -> grpc.aio.Channel:
        if self._secure:
            return grpc.aio.secure_channel(self._target, grpc.ssl_channel_credentials(), options=_OPTIONS)
        return grpc.aio.insecure_channel(self._target, options=_OPTIONS)

    async def _loop(self, infer: Any, load: Load, until_s: float) -> None:
        while (sent_s := time.perf_counter()) < until_s:
            try:
                await infer(self._request)
            except grpc.aio.AioRpcError as exc:
                load.tally.error(f"{exc.code().name}: {exc.details()}")
            else:
                load.tally.latencies_ns.append(int((time.perf_counter() - sent_s) * 1e9))
