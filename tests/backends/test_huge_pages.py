"""Memory gathered into huge pages."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from gateway.backends.onnxruntime.huge_pages import LEAST_BYTES, gather, large_mappings
from tests.backends.graphs import batch, load, model, save, tensor

_SIZE = 2 * LEAST_BYTES


def table(size_bytes: int) -> onnx.ModelProto:
    """Build `y = the rows x` of a table of so many bytes; all rows are ones."""
    rows = numpy_helper.from_array(np.ones((size_bytes // 8, 2), np.float32), "rows")
    node = helper.make_node("Gather", ["rows", "x"], ["y"], axis=0)
    inputs, outputs = [tensor("x", ["n"], onnx.TensorProto.INT64)], [tensor("y", ["n", 2])]
    return model([node], inputs, outputs, initializers=[rows])


def kilobytes(name: str) -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def gathers() -> bool:
    """Whether the kernel gathers pages when it is asked."""
    before = large_mappings()
    with mmap.mmap(-1, _SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(b"\x5a" * _SIZE)
        return gather(before) > 0


def test_what_is_there_is_gathered() -> None:
    """New memory that is in use is gathered, keeps its content, and is no more than it was."""
    before = large_mappings()
    with mmap.mmap(-1, _SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(b"\x5a" * _SIZE)
        resident = kilobytes("Rss")
        huge = kilobytes("AnonHugePages")
        gathered = gather(before)
        if not gathered:
            pytest.skip("this kernel gathers no pages, or is not to")
        assert gathered >= LEAST_BYTES
        assert kilobytes("AnonHugePages") > huge
        assert kilobytes("Rss") - resident < 4096
        assert memory[:] == b"\x5a" * _SIZE


def test_what_is_not_there_stays_away() -> None:
    """Memory that nobody has touched is not made resident."""
    before = large_mappings()
    with mmap.mmap(-1, _SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory[0] = 1
        assert gather(before) == 0


def test_what_was_there_before_is_left_alone() -> None:
    """Memory that was known before is not touched."""
    with mmap.mmap(-1, _SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(b"\x5a" * _SIZE)
        assert gather(large_mappings()) == 0


async def test_the_weights_of_a_large_model(tmp_path: Path) -> None:
    """A model's weights are in huge pages when it is loaded, and it answers."""
    artifact = save(tmp_path, table(_SIZE))
    huge = kilobytes("AnonHugePages")
    loaded = await load(artifact)
    more = kilobytes("AnonHugePages") - huge
    result = await loaded.infer(batch({"x": np.zeros(1, np.int64)}))
    assert result.outputs["y"].tolist() == [[1.0, 1.0]]
    await loaded.aclose()
    if not gathers():
        pytest.skip("this kernel gathers no pages, or is not to")
    assert more * 1024 >= LEAST_BYTES
