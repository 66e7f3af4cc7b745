"""Answers a request of `count` with so many responses: `index` 0, 1, 2 ... `delay_ms` apart.

`fail_at` ends with an error in place of that response; -1 is none.
"""
# mypy: ignore-errors

import time
from typing import Any

import numpy as np
import triton_python_backend_utils as triton


class TritonPythonModel:
    """What the Python backend looks for; it has no other name for it."""

    def execute(self, requests: list[Any]) -> None:
        """Send the responses of one request after the other."""
        for request in requests:
            self._repeat(request)

    def _repeat(self, request: Any) -> None:
        sender = request.get_response_sender()
        count, delay_ms, fail_at = (self._number(request, n) for n in ("count", "delay_ms", "fail_at"))
        for index in range(count):
            if request.is_cancelled():
                break
            if index == fail_at:
                sender.send(triton.InferenceResponse([], triton.TritonError("it fails here")))
                break
            sender.send(triton.InferenceResponse([triton.Tensor("index", np.array([index], np.int32))]))
            time.sleep(delay_ms / 1000)
        sender.send(flags=triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _number(self, request: Any, name: str) -> int:
        tensor = triton.get_input_tensor_by_name(request, name)
        return int(tensor.as_numpy().ravel()[0]) if tensor is not None else {"fail_at": -1}.get(name, 0)
