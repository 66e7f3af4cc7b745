"""KServe's Python server with a model of ONNX Runtime, on loopback."""
# mypy: ignore-errors
# kserve is installed in its peer's venv alone.

import logging
from typing import Any

import kserve
import kserve.model_server
from kserve.protocol.infer_type import InferOutput, InferRequest, InferResponse
from kserve.protocol.rest.server import RESTServer

from loadtests.peers.servers.loopback_grpc import bind_to_loopback
from loadtests.peers.servers.one_thread import OneThreadModel, settings


class OnnxModel(kserve.Model):
    """Runs each request by itself: KServe batches in a sidecar of its agent, in Go, not in this server."""

    def load(self) -> bool:
        """Open the model."""
        self._model = OneThreadModel(settings()["file"])
        self.ready = True
        return self.ready

    def predict(
        self, payload: InferRequest, headers: Any = None, response_headers: Any = None
    ) -> InferResponse:
        """Return the output for a request."""
        del headers, response_headers
        result = self._model.run(payload.inputs[0].as_numpy())
        output = InferOutput(self._model.output_name, list(result.shape), "FP32")
        binary = payload.use_binary_outputs
        output.set_data_from_numpy(result, binary_data=binary)
        answer_id = payload.id or ""  # KServe refuses the None that it makes of a missing id
        return InferResponse(answer_id, self.name, [output], use_binary_outputs=binary)


class LoopbackRest(RESTServer):
    """KServe's HTTP server binds every interface and has no option for it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.config.host = "127.0.0.1"


if __name__ == "__main__":
    kserve.model_server.RESTServer = LoopbackRest
    bind_to_loopback()
    wanted = settings()
    model = OnnxModel(wanted["name"])
    model.load()
    server = kserve.ModelServer(
        http_port=wanted["ports"]["http-binary"],
        grpc_port=wanted["ports"]["grpc"],
        workers=1,
        enable_latency_logging=False,
    )
    logging.disable(logging.INFO)  # it writes several lines for each request
    server.start([model])
