"""Several processes with one cache directory."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway.registry.cache import ArtifactCache
from gateway.registry.cache.layout import Layout
from tests.registry.cache.shelf import FILES, QUICK, Shelf, contents, digest_of, ignore, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[3]
TOTAL = sum(map(len, FILES.values()))


class Other:
    """A process that obtains the version; see `process.py`."""

    def __init__(self, directory: Path, pipe: str = "") -> None:
        command = [sys.executable, "-m", "tests.registry.cache.process"]
        self._process = subprocess.Popen(
            [*command, str(directory / "cache"), str(directory / "log"), pipe],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def said(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until it says something of that kind, and return it."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if wanted(said := json.loads(line)):
                return dict(said)
        raise AssertionError(f"it ended with {self._process.wait()}")

    def digest(self) -> str:
        said = self.said(lambda said: "digest" in said)
        assert said["right"]
        return str(said["digest"])

    def finish(self) -> None:
        out, _ = self._process.communicate("")
        assert json.loads(out.splitlines()[-1]) == {"right": True}
        assert self._process.returncode == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def others(tmp_path: Path) -> Iterator[Callable[..., Other]]:
    started: list[Other] = []

    def start(*, gated: bool = False) -> Other:
        pipe = tmp_path / "pipe"
        if gated and not pipe.exists():
            os.mkfifo(pipe)
        started.append(Other(tmp_path, str(pipe) if gated else ""))
        return started[-1]

    yield start
    for other in started:
        with contextlib.suppress(ValueError):  # it has been waited for
            other.kill()


def reads(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().splitlines()


def test_processes_at_once_download_once(others: Callable[..., Other], tmp_path: Path) -> None:
    """Three that start together fetch each part once between them, and all have it."""
    started = [others() for _ in range(3)]
    assert {other.digest() for other in started} == {digest_of(FILES)}
    for other in started:
        other.finish()
    assert len(reads(tmp_path)) == len(set(reads(tmp_path))) == 9


def test_who_waits_sees_how_far_the_other_is(others: Callable[..., Other], tmp_path: Path) -> None:
    """A process that waits for another's download tells its progress, and then takes the result."""
    first = others(gated=True)
    first.said(lambda said: said.get("gate") == "reached")
    second = others()
    second.said(lambda said: said.get("total") == TOTAL and 0 < said["done"] < TOTAL)
    (tmp_path / "pipe").open("wb").close()
    with contextlib.ExitStack() as stack:  # as often as the first comes to the gate
        stack.enter_context((tmp_path / "pipe").open("r+b", buffering=0))
        assert first.digest() == second.digest()
    first.finish()
    second.finish()
    assert len(reads(tmp_path)) == 9


def test_who_waits_goes_on_when_the_other_is_killed(others: Callable[..., Other], tmp_path: Path) -> None:
    """When the process that downloads is killed the one that waits goes on with the parts there are."""
    first = others(gated=True)
    first.said(lambda said: said.get("gate") == "reached")
    second = others()
    second.said(lambda said: said.get("total") == TOTAL)
    first.kill()
    assert second.digest() == digest_of(FILES)
    second.finish()
    assert len(reads(tmp_path)) == 10, "all but the part under way were there"


async def test_pins_of_other_processes_are_respected(others: Callable[..., Other], tmp_path: Path) -> None:
    """Nothing that another process uses is collected; once it is killed, it is."""
    other = others()
    digest = other.digest()
    cache = ArtifactCache(tmp_path / "cache", _nothing_stays())
    report = await cache.collect()
    assert (report.removed, report.pinned) == ({}, 1)
    other.kill()
    # It counts as used until the collection that found it in use.
    report = await cache.collect()
    assert report.removed == {digest: "bytes"}
    await cache.aclose()


async def test_an_artifact_is_kept_for_another_gateway(tmp_path: Path) -> None:
    """What one gateway wants kept no other collects, until it says otherwise or has been silent for long."""
    now_s = 1e9
    one, two = (ArtifactCache(tmp_path / "cache", _nothing_stays(lambda: now_s)) for _ in range(2))
    async with one.obtain(request(Shelf()), ignore) as artifact:
        assert contents(artifact.directory) == FILES
    now_s += 10
    assert (await one.collect([artifact.digest])).removed == {}
    assert (await two.collect()).removed == {}
    assert (await two.collect()).kept == 1
    assert set((await one.collect()).removed) == {artifact.digest}
    await one.aclose()
    await two.aclose()


def _nothing_stays(wall_s: Callable[[], float] | None = None) -> Any:
    options = replace(QUICK, max_bytes=0, grace_s=-1)
    return options if wall_s is None else replace(options, wall_s=wall_s)


def test_a_directory_that_another_has_just_begun_is_a_cache(tmp_path: Path) -> None:
    """Between the look for the format and the look at what else is there, another process makes the cache."""

    class Late(Layout):
        raced = False

        def _format(self) -> bytes | None:
            if not self.raced:
                self.raced = True
                Layout(self.root).prepare()
                return None
            return super()._format()

    Late(tmp_path / "cache").prepare()
    Layout(tmp_path / "cache").prepare()
