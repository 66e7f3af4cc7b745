"""Gives every input back as the output in its place, whatever the datatype."""
# mypy: ignore-errors

import json
from typing import Any

import triton_python_backend_utils as triton

from .faults import Faults


class TritonPythonModel:
    """What the Python backend looks for; it has no other name for it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the names."""
        config = json.loads(args["model_config"])
        self._pairs = [(i, o["name"]) for i, o in zip(config["input"], config["output"], strict=True)]
        self._faults = Faults()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request with its inputs."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        if reason := self._faults.meet():
            return triton.InferenceResponse([], triton.TritonError(reason))
        return triton.InferenceResponse([self._copy(request, *pair) for pair in self._pairs])

    def _copy(self, request: Any, given: dict[str, Any], wanted: str) -> Any:
        tensor = triton.get_input_tensor_by_name(request, given["name"])
        if given["data_type"] == "TYPE_BF16":  # numpy has no such type
            return triton.Tensor.from_dlpack(wanted, tensor.to_dlpack())
        return triton.Tensor(wanted, tensor.as_numpy())
