"""A bare grpc.aio server on uvloop: it echoes messages, or runs the model for each by itself."""

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import uvloop

from gateway._proto import open_inference_pb2 as pb
from loadtests.peers.servers.one_thread import OneThreadModel, settings

_SERVICE = "inference.GRPCInferenceService"
_ANY_SIZE = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


def echo() -> Any:
    """Return the method that sends back the bytes it got."""

    async def answer(message: bytes, _context: Any) -> bytes:
        return message

    return grpc.unary_unary_rpc_method_handler(answer)


def direct() -> Any:
    """Return the method that runs the model on the event loop, each request by itself."""
    asked = settings()
    model = OneThreadModel(asked["file"])

    async def answer(request: pb.ModelInferRequest, _context: Any) -> pb.ModelInferResponse:
        rows = np.frombuffer(request.raw_input_contents[0], "<f4").reshape(tuple(request.inputs[0].shape))
        result = model.run(rows)
        response = pb.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        response.outputs.add(name=model.output_name, datatype="FP32", shape=result.shape)
        response.raw_output_contents.append(result.tobytes())
        return response

    return grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=pb.ModelInferRequest.FromString,
        response_serializer=pb.ModelInferResponse.SerializeToString,
    )


async def serve(method: Callable[[], Any], port: int) -> None:
    """Serve until SIGTERM."""
    server = grpc.aio.server(options=_ANY_SIZE)
    handler = grpc.method_handlers_generic_handler(_SERVICE, {"ModelInfer": method()})
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await server.stop(grace=0)


if __name__ == "__main__":
    wanted = settings()
    uvloop.run(serve(echo if wanted["echo"] else direct, wanted["ports"]["grpc"]))
