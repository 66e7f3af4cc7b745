"""Rollout files in a real directory."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.config.rollout_directory import RolloutDirectory
from gateway.config.rollout_file import MAX_ROLLOUT_BYTES
from gateway.config.rollout_listing import MAX_FILES, read_directory, read_file
from gateway.config.rollout_set import RolloutFiles
from tests.config.rollouts.texts import SPLIT, rollout

LONG_S = 30.0
"""A guard: nothing here is expected to take a tenth of it."""


class Followed:
    """A directory that is followed, with what it last was."""

    def __init__(self, watch: AsyncIterator[RolloutFiles]) -> None:
        self._watch = watch

    async def until(self, names: set[str], *, errors: int = 0) -> RolloutFiles:
        """Return what is in force once it is `names`, with so many files refused."""
        async with asyncio.timeout(LONG_S):
            async for found in self._watch:
                refused = [s for s in found.statuses if s.error]
                if {s.name for s in found.specs} == names and len(refused) == errors:
                    return found
        raise AssertionError("the watch ended")


@asynccontextmanager
async def followed(directory: Path, poll_interval_s: float = 0.05) -> AsyncIterator[Followed]:
    rollouts = RolloutDirectory(directory, poll_interval_s=poll_interval_s, settle_s=0.05)
    watch = rollouts.watch()
    try:
        yield Followed(watch)
    finally:
        await watch.aclose()


def replace(path: Path, text: str) -> None:
    """Write beside and rename."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(text)
    draft.rename(path)


async def test_files_come_change_and_go(tmp_path: Path) -> None:
    """Of the known suffixes alone, hidden ones left out."""
    for name in (".hidden.yaml", "a.yaml~", "README.md"):
        (tmp_path / name).write_text(rollout("no", "no"))
    (tmp_path / "a.yaml").write_text(rollout())
    async with followed(tmp_path) as files:
        await files.until({"line"})
        replace(tmp_path / "b.yml", rollout("other", "n"))
        found = await files.until({"line", "other"})
        assert [Path(s.path).name for s in found.specs] == ["a.yaml", "b.yml"]
        assert found.specs[0].author == (tmp_path / "a.yaml").owner()
        replace(tmp_path / "a.yaml", "kind: [")
        await files.until({"line", "other"}, errors=1)
        replace(tmp_path / "a.yaml", rollout("newer"))
        await files.until({"newer", "other"})
        (tmp_path / "a.yaml").unlink()
        await files.until({"other"})


async def test_changes_are_noticed_without_waiting_for_the_interval(tmp_path: Path) -> None:
    """By inotify: the interval is beyond the test's own limit."""
    (tmp_path / "a.yaml").write_text(rollout())
    async with followed(tmp_path, poll_interval_s=10 * LONG_S) as files:
        await files.until({"line"})
        watching = asyncio.ensure_future(files.until({"newer"}))
        # A rename before the system's watch exists would go unnoticed, so there are several.
        for _ in range(100):
            replace(tmp_path / "a.yaml", rollout("newer"))
            await asyncio.wait([watching], timeout=0.3)
            if watching.done():
                break
        await watching


async def test_a_missing_directory_keeps_what_was_there(tmp_path: Path) -> None:
    """It comes back under the same name with other files, and is followed again."""
    directory = tmp_path / "rollouts"
    async with followed(directory) as files:
        assert not (await files.until(set())).complete
        directory.mkdir()
        replace(directory / "a.yaml", rollout())
        await files.until({"line"})
        directory.rename(tmp_path / "away")
        async with asyncio.timeout(LONG_S):
            found = await files.until({"line"})
        assert "No such file" in found.error
        (tmp_path / "away" / "a.yaml").write_text(rollout("newer"))
        (tmp_path / "away").rename(directory)
        await files.until({"newer"})


async def test_a_config_map_is_exchanged_whole(tmp_path: Path) -> None:
    """As Kubernetes does it: `..data` is renamed over, every file is a link through it."""
    for generation, name in (("..1", "line"), ("..2", "newer")):
        (tmp_path / generation).mkdir()
        (tmp_path / generation / "a.yaml").write_text(rollout(name))
        (tmp_path / generation / "b.yaml").write_text(rollout(f"{name}-b", "n"))
    (tmp_path / "..data").symlink_to("..1")
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    async with followed(tmp_path) as files:
        await files.until({"line", "line-b"})
        (tmp_path / "..tmp").symlink_to("..2")
        (tmp_path / "..tmp").rename(tmp_path / "..data")
        await files.until({"newer", "newer-b"})


def test_what_is_no_file_is_refused_without_a_wait(tmp_path: Path) -> None:
    """A pipe without a writer would block a plain open for ever."""
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "door.yaml"))
        files = read_directory(tmp_path).files
    assert {Path(p).stem: f.content for p, f in files.items()} == dict.fromkeys(
        ("pipe", "folder", "dangling", "loop", "door")
    )
    assert all(f.error.startswith(f"{p}:1: ") for p, f in files.items())


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    """Its size is enough."""
    path = tmp_path / "a.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert f"at most {MAX_ROLLOUT_BYTES} are read" in read_file(path).error


def test_too_many_files_are_refused_as_a_whole(tmp_path: Path) -> None:
    """Half of a set would look like deletions."""
    for n in range(MAX_FILES + 1):
        (tmp_path / f"{n}.yaml").touch()
    assert f"at most {MAX_FILES} are read" in read_directory(tmp_path).error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_told(tmp_path: Path) -> None:
    """As what it is."""
    path = tmp_path / "a.yaml"
    path.write_text(SPLIT)
    path.chmod(0)
    assert "Permission denied" in read_file(path).error
