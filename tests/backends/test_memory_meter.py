"""What loads are found to take."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gateway.backends.onnxruntime.backend import OnnxRuntimeBackend
from gateway.backends.onnxruntime.memory import MemoryMeter, used_bytes
from gateway.core.options import LoadOptions, ModelSpec
from gateway.core.types import CPU, Artifact, Device


class Used:
    """A probe that tells what it is told."""

    def __init__(self) -> None:
        self.nbytes = 1000

    def __call__(self, device: Device) -> int:
        return self.nbytes


def test_the_difference_counts_and_never_less_than_nothing() -> None:
    """What was freed meanwhile does not make a load cost less than nothing."""
    used = Used()
    meter = MemoryMeter(used)
    with meter.measuring(CPU) as more:
        used.nbytes += 500
    with meter.measuring(CPU) as less:
        used.nbytes -= 300
    assert (more.nbytes, less.nbytes) == (500, 0)


def test_two_at_once_tell_nothing() -> None:
    """Neither the first, nor the second, whichever ends first; the next one alone does again."""
    used = Used()
    meter = MemoryMeter(used)
    with meter.measuring(CPU) as outer:
        with meter.measuring(CPU) as inner:
            used.nbytes += 500
        used.nbytes += 500
    assert (outer.nbytes, inner.nbytes) == (0, 0)
    with meter.measuring(CPU) as alone:
        used.nbytes += 7
    assert alone.nbytes == 7


def test_a_failed_load_leaves_the_meter_usable() -> None:
    """It counts as running no more."""
    used = Used()
    meter = MemoryMeter(used)
    with pytest.raises(RuntimeError), meter.measuring(CPU):
        raise RuntimeError
    with meter.measuring(CPU) as alone:
        used.nbytes += 7
    assert alone.nbytes == 7


def test_the_real_probe_sees_an_allocation() -> None:
    """Even of memory that is never touched, or was used before."""
    before = used_bytes(CPU)
    block = np.empty(32 << 20, np.uint8)
    after = used_bytes(CPU)
    assert before is not None
    assert after is not None
    assert after - before >= block.nbytes


async def test_a_loaded_model_costs_about_its_weights(tmp_path: Path) -> None:
    """5 MB of weights are held once: no less than the file, and not twice as much."""
    side = 1118
    weights = numpy_helper.from_array(np.ones((side, side), np.float32), "w")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", side]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weights]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    backend = OnnxRuntimeBackend()
    held = 0
    for _ in range(2):  # the first load of a process takes more: libraries, pools
        loaded = await backend.load(Artifact(tmp_path, path, "d"), LoadOptions(spec=ModelSpec(name="m")))
        held = loaded.memory_bytes
        await loaded.aclose()
    size = path.stat().st_size
    assert size <= held < 2 * size
