"""Gives `x` back as `y` after as many milliseconds as the request's parameter `ms` says."""
# mypy: ignore-errors

import json
import time
from typing import Any

import triton_python_backend_utils as triton


class TritonPythonModel:
    """What the Python backend looks for; it has no other name for it."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Wait for the slowest of the batch and answer all."""
        time.sleep(max(json.loads(request.parameters()).get("ms", 0) for request in requests) / 1000)
        return [
            triton.InferenceResponse(
                [triton.Tensor("y", triton.get_input_tensor_by_name(request, "x").as_numpy())]
            )
            for request in requests
        ]
