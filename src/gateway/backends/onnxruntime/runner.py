"""Run one batch on a session: convert inputs, run, and fetch outputs into fresh memory; blocking."""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime

from gateway.core.errors import BackendError, InvalidRequest, ModelLoadError
from gateway.core.types import Array, BatchResult, Datatype

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.backends.onnxruntime.session import Session
    from gateway.core.types import Device, ModelSignature


_ONNX_BFLOAT16: Final = 16  # TensorProto.BFLOAT16; importing onnx for it would cost 100 ms and its memory


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How every run of a model is made.

    Attributes:
        device: where outputs are computed.
        bind: copy inputs and outputs by IO binding.
        run_options: ONNX Runtime's own, shared and never changed.
    """

    device: Device
    bind: bool
    run_options: Any


class Runner:
    """Runs batches on one session; safe to call from several threads at once.

    Outputs are always fresh memory: bindings are never used twice and nothing is pooled, so a later run
    cannot overwrite what an earlier one returned.
    """

    def __init__(self, session: Session, signature: ModelSignature, settings: RunSettings) -> None:
        """Take over the session.

        Raises:
            ModelLoadError: ONNX Runtime's Python interface cannot carry this mixture of types.
        """
        self._session: Any = session
        self._settings = settings
        self._types = {t.name: t.datatype for t in (*signature.inputs, *signature.outputs)}
        takes_text = any(t.datatype is Datatype.BYTES for t in signature.inputs)
        # Text cannot be put into an OrtValue from Python, bfloat16 cannot be got out of anything else.
        self._bind = settings.bind and not takes_text
        self._in_values = any(t.datatype is Datatype.BF16 for t in signature.outputs)
        if takes_text and self._in_values:
            raise ModelLoadError("text inputs together with bfloat16 outputs cannot be served")

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> BatchResult:
        """Run once.

        Args:
            inputs: name -> C-contiguous, aligned array; read only, referenced until the run has returned.
            outputs: names wanted, not empty.

        Raises:
            InvalidRequest: a BYTES element is not UTF-8.
            Exception: whatever ONNX Runtime raises.
        """
        started = time.perf_counter_ns()
        feeds = {name: self._feed(name, array) for name, array in inputs.items()}
        if self._bind:
            return self._run_bound(feeds, outputs, started)
        execute = self._session.run_with_ort_values if self._in_values else self._session.run
        ready = time.perf_counter_ns()
        values = execute(outputs, feeds, self._settings.run_options)
        return self._result(outputs, values, (started, ready, time.perf_counter_ns()))

    def close(self) -> None:
        """Destroy the session, in the calling thread; no run is under way and none follows."""
        self._session = None

    def _run_bound(self, feeds: Mapping[str, Any], outputs: Sequence[str], started: int) -> BatchResult:
        binding = self._session.io_binding()
        for name, feed in feeds.items():
            binding.bind_ortvalue_input(name, feed)  # copies to the device where needed
        for name in outputs:
            self._bind_output(binding, name)
        binding.synchronize_inputs()
        ready = time.perf_counter_ns()
        self._session.run_with_iobinding(binding, self._settings.run_options)
        binding.synchronize_outputs()
        ran = time.perf_counter_ns()
        return self._result(outputs, binding.get_outputs(), (started, ready, ran))

    def _bind_output(self, binding: Any, name: str) -> None:
        """Let ONNX Runtime allocate on the device what it can copy back; text and bfloat16 on the host."""
        device = self._settings.device
        if device.kind == "cpu" or self._types[name] in {Datatype.BYTES, Datatype.BF16}:
            binding.bind_output(name, "cpu")
        else:
            binding.bind_output(name, device.kind, device.ordinal)

    def _feed(self, name: str, array: Array) -> Any:
        """Return what ONNX Runtime takes for an input: text as `str`, OrtValues where they are needed."""
        datatype = self._types.get(name)
        if datatype is Datatype.BYTES:
            return _decoded(name, array)
        if datatype is Datatype.BF16:
            return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _ONNX_BFLOAT16)
        if self._bind or self._in_values:
            return onnxruntime.OrtValue.ortvalue_from_numpy(array)
        return array

    def _result(
        self, names: Sequence[str], values: Sequence[Any], times: tuple[int, int, int]
    ) -> BatchResult:
        started, ready, ran = times
        outputs = {name: self._fetch(name, value) for name, value in zip(names, values, strict=True)}
        return BatchResult(outputs, ready - started, ran - ready, time.perf_counter_ns() - ran)

    def _fetch(self, name: str, value: Any) -> Array:
        if value is None:
            raise BackendError(f"output '{name}' came out empty: the model left its optional value out")
        if not isinstance(value, np.ndarray):
            value = self._array(name, value)
        return _encoded(value) if self._types[name] is Datatype.BYTES else value

    def _array(self, name: str, value: Any) -> Array:
        if self._types[name] is Datatype.BF16:
            return _copied(value, Datatype.BF16.dtype)
        return np.asarray(value.numpy())


def _copied(value: Any, dtype: np.dtype[Any]) -> Array:
    """Copy an OrtValue in host memory whose type `OrtValue.numpy` does not know."""
    size = value.tensor_size_in_bytes()
    if size == 0:
        return np.empty(value.shape(), dtype)
    memory = (ctypes.c_char * size).from_address(value.data_ptr())
    return np.frombuffer(memory, dtype).reshape(value.shape()).copy()


def _decoded(name: str, array: Array) -> Array:
    """Turn an object array of `bytes` into one of `str`, which is what ONNX Runtime's strings are made of."""
    texts = np.empty(array.size, np.object_)
    for index, element in enumerate(array.ravel()):
        try:
            texts[index] = element.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(
                f"element {index} of input '{name}' is not UTF-8; ONNX string tensors hold text"
            ) from None
    return texts.reshape(array.shape)


def _encoded(array: Array) -> Array:
    """Turn an array of `str` into an object array of `bytes`."""
    encoded = np.empty(array.size, np.object_)
    encoded[:] = [text.encode() for text in array.ravel()]
    return encoded.reshape(array.shape)
