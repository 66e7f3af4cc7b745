"""What is watched on disk, with real inotify."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from gateway.registry.changes import changes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    import pytest

FOR_EVER_S = 3600.0


def touch(path: Path) -> None:
    path.write_bytes(b"x")


async def watching(looks: AsyncGenerator[None, None], touched: Path) -> asyncio.Future[None]:
    """Begin to wait for a change once the watch is known to work: it has seen `touched` being written."""
    await anext(looks)
    seen = asyncio.ensure_future(anext(looks))
    while not seen.done():
        touch(touched)
        await asyncio.wait([seen], timeout=0.05)
    return asyncio.ensure_future(anext(looks))


async def test_lone_file_is_watched_with_its_data_and_without_strangers(tmp_path: Path) -> None:
    """Changes of the file and of what shares its stem are told; others beside or below it are not."""
    model = tmp_path / "net.onnx"
    deeper = tmp_path / "deep" / "net.onnx"
    deeper.parent.mkdir()
    async with asyncio.timeout(60), aclosing(changes([], [model], FOR_EVER_S)) as looks:
        later = await watching(looks, model)
        # Whatever is still on its way of the first writes has come when the watch is silent for two steps.
        await asyncio.wait([later], timeout=0.5)
        while later.done():
            later = asyncio.ensure_future(anext(looks))
            await asyncio.wait([later], timeout=0.5)
        touch(deeper)
        touch(tmp_path / "stranger.txt")
        await asyncio.wait([later], timeout=0.5)
        assert not later.done()
        touch(tmp_path / "net.onnx.data")
        await later


async def test_trees_and_files_are_watched_together(tmp_path: Path) -> None:
    """A change deep in a tree is told although a lone file is watched besides."""
    tree, file = tmp_path / "tree", tmp_path / "files" / "net.onnx"
    (tree / "m" / "1").mkdir(parents=True)
    file.parent.mkdir()
    async with asyncio.timeout(60), aclosing(changes([tree], [file], FOR_EVER_S)) as looks:
        later = await watching(looks, tree / "m" / "1" / "model.onnx")
        while not later.done():
            touch(file)
            await asyncio.wait([later], timeout=0.05)
        await later


async def test_interval_alone_is_used_where_nothing_can_be_watched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A directory that is not there leaves the regular looks, and the log says so once."""
    async with asyncio.timeout(60), aclosing(changes([tmp_path / "no"], [], 0.01)) as looks:
        for _ in range(5):
            await anext(looks)
    assert caplog.text.count("cannot watch the model repository") == 1
