"""Inspections that are remembered, and what makes them be made again."""

from __future__ import annotations

import mmap
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gateway.backends.onnxruntime.inspected import LARGEST_BYTES, Inspections, look
from gateway.backends.onnxruntime.inspector import InspectionLimits, inspect_file
from gateway.core.errors import ModelLoadError
from gateway.core.types import Artifact

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway.backends.onnxruntime.graph import GraphReport

LIMITS = InspectionLimits()
WEIGHTS = "w.bin"


def graph(operator: str = "Identity", domain: str = "", name: str = "x") -> bytes:
    """Return a model `x` -> `y` of one operator."""
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["batch", 1]) for end in (name, "y")]
    node = helper.make_node(operator, [name], ["y"], domain=domain)
    made = helper.make_graph([node], "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    content: bytes = helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()
    return content


SOUND, SAME_SIZE, HOSTILE = graph(), graph(name="z"), graph("Exploits", "evil.co")


@dataclass
class Version:
    """A version's directory, and an Inspections that has seen it."""

    home: Path
    digest: str = "the digest it is said to have"

    def __post_init__(self) -> None:
        self.home.mkdir(exist_ok=True)
        self.model = self.home / "model.onnx"
        self.inspections = Inspections()

    async def inspect(self, limits: InspectionLimits = LIMITS) -> GraphReport:
        return await self.inspections.inspect(Artifact(self.home, self.model, self.digest), limits)


@pytest.fixture
def version(tmp_path: Path) -> Version:
    version = Version(tmp_path / "1")
    version.model.write_bytes(SOUND)
    return version


async def test_the_same_content_is_inspected_once(version: Version) -> None:
    """Whatever its digest is said to be, and after it was written anew; other limits ask again."""
    first = await version.inspect()
    assert await version.inspect() is first
    version.digest = "another"
    assert await version.inspect() is first
    version.model.unlink()
    version.model.write_bytes(SOUND)
    assert await version.inspect() is first
    assert await version.inspect(InspectionLimits(max_model_bytes=9999)) is not first


def in_place(version: Version, content: bytes) -> None:
    version.model.write_bytes(content)


def by_rename(version: Version, content: bytes) -> None:
    (version.home.parent / "new").write_bytes(content)
    (version.home.parent / "new").rename(version.model)


def through_a_hard_link(version: Version, content: bytes) -> None:
    other = version.home.parent / "link"
    other.hardlink_to(version.model)
    other.write_bytes(content)


def by_another_directory(version: Version, content: bytes) -> None:
    other = version.home.with_name("other")
    other.mkdir()
    (other / "model.onnx").write_bytes(content)
    shutil.rmtree(version.home)
    other.rename(version.home)


def by_a_link_to_a_directory(version: Version, content: bytes) -> None:
    other = version.home.with_name("other")
    other.mkdir()
    (other / "model.onnx").write_bytes(content)
    shutil.rmtree(version.home)
    version.home.symlink_to(other)


WAYS = [in_place, by_rename, through_a_hard_link, by_another_directory, by_a_link_to_a_directory]
every_way = pytest.mark.parametrize("change", WAYS, ids=lambda way: way.__name__)


@every_way
async def test_changed_content_is_inspected_again_however_it_came(
    version: Version, change: Callable[[Version, bytes], None]
) -> None:
    """With the modification time set back, too; and a refusal is the new content's, every time."""
    before = version.model.stat()
    await version.inspect()
    change(version, HOSTILE)
    os.utime(version.model, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(ModelLoadError, match="custom operator 'evil"):
            await version.inspect()


async def test_a_change_that_no_time_and_no_size_tells_of_is_seen(version: Version) -> None:
    """A page mapped before the inspection and written after it keeps every time where it was."""
    assert len(SAME_SIZE) == len(SOUND)
    with version.model.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:] = SOUND
        before = version.model.stat()
        first = await version.inspect()
        mapped[:] = SAME_SIZE
        after = version.model.stat()
        assert (await version.inspect()).inputs[0].name == "z"
    assert first.inputs[0].name == "x"
    assert after.st_size == before.st_size


async def test_what_was_not_itself_inspected_is_not_remembered(version: Version) -> None:
    """Hostile content that a sound one stands in for, just while the child looks, stays unknown."""
    version.model.write_bytes(HOSTILE)
    version.inspections = Inspections(StandsIn(version).inspect)
    for _ in range(2):
        assert (await version.inspect()).inputs[0].name == "x", (
            "as somebody who writes all the while may have it"
        )
    assert version.inspections.remembered == 0


class StandsIn:
    """Inspects a version while a sound file is in the place of its own."""

    def __init__(self, version: Version) -> None:
        self._version = version

    async def inspect(self, artifact: Artifact, limits: InspectionLimits) -> GraphReport:
        content = self._version.model.read_bytes()
        self._version.model.write_bytes(SOUND)
        try:
            return await inspect_file(artifact, limits)
        finally:
            self._version.model.write_bytes(content)


async def test_files_beside_the_model_count_by_their_names_kinds_and_sizes(version: Version) -> None:
    """A file of weights that is cut short is refused though the model is the same."""
    weights = np.ones((1, 1), np.float32)
    tensor = onnx.numpy_helper.from_array(weights, "w")
    onnx.external_data_helper.set_external_data(tensor, WEIGHTS)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["batch", 1]) for end in ("x", "y")]
    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [tensor]
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    version.model.write_bytes(model.SerializeToString())
    data = version.home / WEIGHTS
    data.write_bytes(weights.tobytes())
    first = await version.inspect()
    assert await version.inspect() is first
    data.write_bytes(b"ab")
    with pytest.raises(ModelLoadError, match="holds 2 bytes, the tensor needs 4"):
        await version.inspect()
    data.unlink()
    with pytest.raises(ModelLoadError, match="missing"):
        await version.inspect()
    outside = version.home.parent / WEIGHTS
    outside.write_bytes(weights.tobytes())
    data.symlink_to(outside)
    with pytest.raises(ModelLoadError, match="symbolic link"):
        await version.inspect()


async def test_refusals_are_not_remembered(version: Version) -> None:
    """A file that was mended is taken as it is now."""
    version.model.write_bytes(HOSTILE)
    with pytest.raises(ModelLoadError):
        await version.inspect()
    version.model.write_bytes(SOUND)
    assert (await version.inspect()).inputs[0].name == "x"


def test_a_look_trusts_no_link_and_gives_up_on_what_is_large(version: Version) -> None:
    """Nothing is told where there is a link, no file, a pipe, too much of it, or too many."""
    artifact = Artifact(version.home, version.model, "d")
    assert look(artifact) == look(artifact) is not None
    (version.home / "deep").mkdir()
    (version.home / "deep" / "a").touch()
    deeper = look(artifact)
    assert deeper is not None
    assert [path for path, _, _ in deeper.layout] == ["deep", "deep/a", "model.onnx"]
    link = version.home / "link"
    link.symlink_to(version.model)
    assert look(artifact) is None
    assert look(Artifact(version.home, link, "d")) is None
    link.unlink()
    assert look(Artifact(version.home, version.home / "absent", "d")) is None
    assert look(Artifact(version.home / "deep", version.model, "d")) is None
    for index in range(256):
        (version.home / f"{index}").touch()
    assert look(artifact) is None
    for index in range(256):
        (version.home / f"{index}").unlink()
    os.truncate(version.model, LARGEST_BYTES + 1)
    assert look(artifact) is None
    version.model.unlink()
    os.mkfifo(version.model)
    assert look(artifact) is None, "it waited for a writer"
