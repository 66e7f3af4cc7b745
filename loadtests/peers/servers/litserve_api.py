"""A LitServe server: one API process, one worker process, bare rows in and out."""
# mypy: ignore-errors
# litserve, fastapi and starlette are installed in their peer's venv alone.

from typing import Annotated, Any

import litserve
from fastapi import Body, Response

from loadtests.peers.servers.one_thread import OneThreadModel, body_of, rows_of, settings

_BYTES = "application/octet-stream"


class Rows(litserve.LitAPI):
    """Runs whatever LitServe's loop has put into a batch."""

    def setup(self, device: str) -> None:
        """Open the model, in the worker process."""
        del device
        self._model = OneThreadModel(settings()["file"])

    def decode_request(self, request: Annotated[bytes, Body(media_type=_BYTES)]) -> Any:
        """Return the rows of a body; with a `Request` here LitServe would read JSON."""
        return rows_of(request)

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Keep the parts apart: `predict` must know how many rows each has."""
        return inputs

    def predict(self, inputs: Any) -> Any:
        """Return the outputs of a batch; where LitServe batches nothing, of the rows of one request."""
        return self._model.run_together(inputs) if isinstance(inputs, list) else self._model.run(inputs)

    def unbatch(self, output: list[Any]) -> list[Any]:
        """Return an output for each part."""
        return output

    def encode_response(self, output: Any) -> Response:
        """Return a response that LitServe passes on as it is."""
        return Response(body_of(output), media_type=_BYTES)


if __name__ == "__main__":
    wanted = settings()
    batching = {"max_batch_size": wanted["max_batch_rows"], "batch_timeout": wanted["batch_timeout_s"]}
    server = litserve.LitServer(
        Rows(**(batching if wanted["max_batch_rows"] > 1 else {})),
        accelerator="cpu",
        devices=1,
        workers_per_device=1,
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=wanted["ports"]["http-raw"],
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
