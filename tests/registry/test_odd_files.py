"""The file system source among strange, unreadable and half-written files."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.core.errors import ConfigError, ModelLoadError
from gateway.registry.filesystem import FileSystemSource, SourceOptions
from tests.registry.test_filesystem import QUICK, put, source

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up root's right to read everything for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.fixture
def open_root() -> Iterator[Path]:
    """Give a directory that everybody may enter."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        yield root


@pytest.mark.parametrize("what", ["file", "config", "labels", "version", "model"])
async def test_circle_of_links_disturbs_its_model_alone(tmp_path: Path, what: str) -> None:
    """A link to itself anywhere in a model leaves the others offered, and its own version has the reason."""
    put(tmp_path / "good" / "1" / "model.onnx")
    put(tmp_path / "bad" / "1" / "model.onnx")
    circle = {
        "file": tmp_path / "bad" / "1" / "loop",
        "config": tmp_path / "bad" / "config.pbtxt",
        "labels": tmp_path / "bad" / "labels.txt",
        "version": tmp_path / "bad" / "2",
        "model": tmp_path / "loop",
    }[what]
    link_to_itself(circle)
    if what == "labels":
        put(tmp_path / "bad" / "config.pbtxt", b'output { name: "y" label_filename: "labels.txt" }')
    problems = {v.id[:2]: v.problem for v in await source(tmp_path).snapshot()}
    assert problems["good", 1] == ""
    if what in {"file", "config", "labels"}:
        assert "is a link that leads in a circle" in problems["bad", 1]
    else:
        assert problems["bad", 1] == ""


async def test_names_that_are_not_utf8_disturb_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file may have any name; a directory that cannot be named to clients is no model, as the log says."""
    file = put(tmp_path / "m" / "1" / "model.onnx")
    put(Path(os.fsdecode(os.fsencode(file.parent) + b"/caf\xe9.bin")))
    put(Path(os.fsdecode(os.fsencode(tmp_path) + b"/mod\xe8le/1/model.onnx")))
    found = source(tmp_path)
    for _ in range(3):
        assert [v.id[:2] for v in await found.snapshot()] == [("m", 1)]
    assert await found.models() == ["m"]
    assert caplog.text.count("directory 'mod\\xe8le' is no model") == 1


async def test_reason_with_a_name_that_is_not_utf8_can_be_sent(tmp_path: Path) -> None:
    """What is wrong with such a file is told in text that every protocol can carry."""
    file = put(tmp_path / "m" / "1" / "model.onnx")
    link_to_itself(file.with_name(os.fsdecode(b"caf\xe9")))
    (version,) = await source(tmp_path).snapshot()
    assert "'caf\\xe9'" in version.problem
    version.problem.encode()


async def test_repository_that_is_a_circle_is_a_config_error(tmp_path: Path) -> None:
    """A root or a named model that is a link to itself is refused in words."""
    loop = tmp_path / "loop.onnx"
    loop.symlink_to(loop)
    with pytest.raises(ConfigError, match="cannot be read"):
        await source(loop).snapshot()
    with pytest.raises(ConfigError, match="model 'm'"):
        await FileSystemSource("s", models={"m": loop}).snapshot()


async def test_config_link_that_leads_nowhere_is_a_problem(tmp_path: Path) -> None:
    """A model whose config cannot be followed is not served as if it had none."""
    put(tmp_path / "m" / "1" / "model.onnx")
    (tmp_path / "m" / "config.pbtxt").symlink_to(tmp_path / "gone")
    (version,) = await source(tmp_path).snapshot()
    assert "'config.pbtxt' cannot be read" in version.problem


@pytest.mark.parametrize("what", ["m", "m/1", "m/1/weights", "m/1/model.onnx"])
async def test_what_cannot_be_read_stays_offered_as_it_was(
    open_root: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """A directory or file that became unreadable withdraws and renames nothing, and the log says so."""
    put(open_root / "m" / "1" / "model.onnx")
    put(open_root / "m" / "1" / "weights" / "part.bin")
    put(open_root / "good" / "1" / "model.onnx")
    found = source(open_root)
    before = await found.snapshot()
    if what.endswith(".onnx"):
        put(open_root / what, b"new")
    mode = (open_root / what).stat().st_mode
    (open_root / what).chmod(0)
    try:
        with as_nobody():
            assert await found.snapshot() == before
            assert "cannot be read" in caplog.text
            with pytest.raises(ModelLoadError, match="cannot be read"):
                await found.versions("m")
    finally:
        (open_root / what).chmod(mode)
    assert len(await found.snapshot()) == 2


@pytest.mark.parametrize("name", ["config.pbtxt", "labels.txt"])
async def test_half_written_settings_are_not_taken(tmp_path: Path, name: str) -> None:
    """A config or label file that grows between two looks keeps a new model back, a known one as it was."""
    model = put(tmp_path / "m" / "1" / "model.onnx")
    os.utime(model, (1000, 1000))
    config = b'max_batch_size: 8 output { name: "y" label_filename: "labels.txt" }'
    texts = {"config.pbtxt": config, "labels.txt": b"cat\ndog\n"}
    for each, text in texts.items():
        os.utime(put(tmp_path / "m" / each, text), (1000, 1000))
    growing = put(tmp_path / "m" / name, texts[name][:-4])
    pauses: list[float] = []

    async def write_on(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            growing.write_bytes(texts[name])

    found = source(tmp_path, SourceOptions(settle_s=30, pause=write_on))
    assert await found.snapshot() == []
    (version,) = await found.snapshot()
    assert (version.problem, version.spec.labels) == ("", {"y": ("cat", "dog")})
    growing.write_bytes(texts[name][:-4])
    pauses.clear()
    assert await found.snapshot() == [version]


async def test_config_that_appears_between_the_looks_is_waited_for(tmp_path: Path) -> None:
    """A model is not served without its config because the config was copied last."""
    put(tmp_path / "m" / "1" / "model.onnx")

    async def copy_on(seconds: float) -> None:
        put(tmp_path / "m" / "config.pbtxt", b"max_batch_size: 2")

    found = source(tmp_path, SourceOptions(settle_s=30, pause=copy_on))
    assert await found.snapshot() == []


async def test_names_served_from_elsewhere_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A repository neither offers nor lists the models excluded, and says so once."""
    put(tmp_path / "digits" / "2" / "model.onnx")
    put(tmp_path / "other" / "1" / "model.onnx")
    found = FileSystemSource("repository", tmp_path, options=QUICK, exclude={"digits": tmp_path})
    for _ in range(2):
        assert [v.id[:2] for v in await found.snapshot()] == [("other", 1)]
    assert await found.models() == ["other"]
    assert caplog.text.count("directory 'digits' is not served") == 1


async def test_what_is_remembered_is_bounded_by_what_exists(tmp_path: Path) -> None:
    """Loading on demand for ever keeps one digest per file there is and one note per thing to say."""
    found = source(tmp_path)
    for turn in range(20):
        put(tmp_path / "m" / "1" / "model.onnx", b"%d" % turn)
        extra = put(tmp_path / "m" / "1" / f"extra{turn}.bin")
        put(tmp_path / f"gone{turn}" / "1" / "model.onnx")
        (tmp_path / "m" / f"strange{turn}").mkdir()
        await found.versions("m")
        await found.versions(f"gone{turn}")
        (tmp_path / f"gone{turn}").rename(tmp_path / f".gone{turn}")
        (tmp_path / "m" / f"strange{turn}").rmdir()
        extra.unlink()
    await found.versions("m")
    assert len(found._digests) == 1
    assert len(found._said) == 0


async def test_digest_follows_content_that_keeps_its_path(tmp_path: Path) -> None:
    """A file rewritten under its name is digested anew, and back again gives the first identity."""
    found = source(tmp_path)
    identities = []
    for content in (b"one", b"two", b"one"):
        put(tmp_path / "m" / "1" / "model.onnx", content)
        identities.append((await found.versions("m"))[0].id)
    assert identities[0] == identities[2] != identities[1]
