"""Answers with the sum of a sequence's values so far: state lies in this one endpoint."""

# mypy: ignore-errors
from typing import Any

import triton_python_backend_utils as triton


class TritonPythonModel:
    """What the Python backend looks for; it has no other name for it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Begin without sequences."""
        del args
        self._sums = {}

    def execute(self, requests: list[Any]) -> list[Any]:
        """Add each request's value to its sequence's sum."""
        return [self._added(request) for request in requests]

    def _added(self, request: Any) -> Any:
        value, start, sequence = (
            triton.get_input_tensor_by_name(request, name).as_numpy() for name in ("value", "START", "CORRID")
        )
        key = int(sequence.ravel()[0])
        before = 0 if start.ravel()[0] else self._sums.get(key, 0)
        self._sums[key] = before + value
        return triton.InferenceResponse([triton.Tensor("sum", self._sums[key])])
