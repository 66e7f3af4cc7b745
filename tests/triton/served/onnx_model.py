"""Runs the `model.onnx` of its version by ONNX Runtime, all requests of a batch in one call."""
# mypy: ignore-errors

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton

from .faults import Faults


class TritonPythonModel:
    """What the Python backend looks for; it has no other name for it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the model."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        file = Path(args["model_repository"], args["model_version"], "model.onnx")
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self._inputs = [tensor.name for tensor in self._session.get_inputs()]
        self._inputs += [tensor.name for tensor in self._session.get_overridable_initializers()]
        self._strings = {t.name for t in self._session.get_inputs() if t.type == "tensor(string)"}
        self._outputs = [tensor.name for tensor in self._session.get_outputs()]
        self._batched = json.loads(args["model_config"])["max_batch_size"] > 0
        self._faults = Faults()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests that Triton has put into a batch."""
        answers = [self._error(self._faults.meet()) for _ in requests]
        live = [index for index, error in enumerate(answers) if error is None]
        feeds = [self._feed(requests[index]) for index in live]
        # Rows of different widths go alone, as do requests of a model without a batch axis.
        together = self._batched and len({tuple(a.shape[1:] for a in f.values()) for f in feeds}) == 1
        runs = self._together(feeds) if together else map(self._run, feeds)
        for index, outputs in zip(live, runs, strict=True):
            tensors = [triton.Tensor(*pair) for pair in zip(self._outputs, outputs, strict=True)]
            answers[index] = triton.InferenceResponse(tensors)
        return answers

    def _error(self, reason: str) -> Any:
        return triton.InferenceResponse([], triton.TritonError(reason)) if reason else None

    def _feed(self, request: Any) -> dict[str, Any]:
        tensors = ((name, triton.get_input_tensor_by_name(request, name)) for name in self._inputs)
        return {name: self._value(name, tensor.as_numpy()) for name, tensor in tensors if tensor is not None}

    def _value(self, name: str, array: Any) -> Any:
        if name not in self._strings:
            return array
        return np.array([text.decode() for text in array.ravel()], np.object_).reshape(array.shape)

    def _run(self, feed: dict[str, Any]) -> list[Any]:
        return self._session.run(self._outputs, feed)

    def _together(self, feeds: list[dict[str, Any]]) -> list[Any]:
        names = list(feeds[0])
        if len(feeds) == 1:
            return [self._run(feeds[0])]
        ends = np.cumsum([len(feed[names[0]]) for feed in feeds])[:-1]
        outputs = self._run({name: np.concatenate([feed[name] for feed in feeds]) for name in names})
        return list(zip(*(np.split(output, ends) for output in outputs), strict=True))
