"""The model that Triton's Python backend runs: all requests of a batch in one call of ONNX Runtime."""
# mypy: ignore-errors
# triton_python_backend_utils exists inside the backend alone, which imports this file as part of a package.

from typing import Any

import triton_python_backend_utils as triton

from .one_thread import OneThreadModel, settings


class TritonPythonModel:
    """What the Python backend looks for; it has no other name for it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the model."""
        del args
        self._model = OneThreadModel(settings()["file"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests that Triton has put into a batch."""
        parts = [
            triton.get_input_tensor_by_name(request, self._model.input_name).as_numpy()
            for request in requests
        ]
        return [
            triton.InferenceResponse([triton.Tensor(self._model.output_name, rows)])
            for rows in self._model.run_together(parts)
        ]
