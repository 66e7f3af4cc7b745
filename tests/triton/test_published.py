"""Versions of a registry on real Triton servers in explicit mode that share a repository."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from gateway.core.types import VersionState
from tests.acceptance import zoo
from tests.fleets.stage import gateway
from tests.triton import models
from tests.triton.server import TritonServer, triton

if TYPE_CHECKING:
    from pathlib import Path

READY, UNLOADED = VersionState.READY, VersionState.UNLOADED


class Shop:
    """A registry with the model `scaled`, whose version n gives n times its input; a shared repository."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "registry" / "scaled"
        self.shared = root / "shared"
        self.shared.mkdir()

    def push(self, number: int) -> None:
        """Write a version, and move the alias `live` to it."""
        model = models.of_onnx({number: zoo.scaled(float(number))})
        staged = self.root / f"staged-{number}"
        model.write_version(staged, number)
        (self.folder / "aliases").mkdir(parents=True, exist_ok=True)
        if not (self.folder / "config.pbtxt").exists():
            (self.folder / "config.pbtxt").write_text(model.config())
        shutil.copytree(staged / str(number), self.folder / str(number))
        (self.folder / "aliases" / "live").write_text(str(number))

    def config(self, *endpoints: TritonServer, cache: str = "cache", **entry: Any) -> dict[str, Any]:
        """Return the configuration of a gateway that follows the alias, unless `entry` says else."""
        fleet = {
            "name": "a",
            "endpoints": [endpoint.grpc for endpoint in endpoints],
            "repository": str(self.shared),
            "probe": {"interval_s": 0.1},
        }
        registry = {"directory": {"path": str(self.folder.parent), "settle_s": 0.01}, "poll_interval_s": 0.1}
        return {
            "triton": [fleet],
            "models": [{"name": "scaled", "source": f"{self.folder}@live", "triton": {}, **entry}],
            "registries": {"shop": registry},
            "cache": {"directory": str(self.root / cache), "free_disk_reserve": 0},
        }


async def test_an_alias_drives_a_fleet(tmp_path: Path) -> None:
    """A version is published, loaded on both endpoints and served; the one before it is unloaded on both."""
    shop = Shop(tmp_path)
    shop.push(1)
    with triton(shop.shared, mode="explicit") as one, triton(shop.shared, mode="explicit") as two:
        async with gateway(shop.config(one, two)) as served:
            await served.watcher.until(scaled=(1, READY))
            assert await served.infer("scaled", 1.0, 2.0) == ([1.0, 2.0], "1")
            shop.push(2)
            await served.watcher.until(scaled=(2, READY))
            assert await served.infer("scaled", 1.0, 2.0) == ([2.0, 4.0], "2")
            await served.watcher.until(scaled=(1, UNLOADED))
            for endpoint in (one, two):
                assert endpoint.says("/v2/models/scaled/versions/2/ready")
                assert not endpoint.says("/v2/models/scaled/versions/1/ready")
        for endpoint in (one, two):  # the gateway has gone, its fleet serves on
            assert endpoint.says("/v2/models/scaled/versions/2/ready")


async def test_an_endpoint_that_restarts_is_loaded_again(tmp_path: Path) -> None:
    """In explicit mode it comes back empty."""
    shop = Shop(tmp_path)
    shop.push(1)
    with triton(shop.shared, mode="explicit") as one:
        async with gateway(shop.config(one)) as served:
            await served.watcher.until(scaled=(1, READY))
            one.kill()
            one.start()
            while not one.says("/v2/models/scaled/versions/1/ready"):
                await served.infer_or_fail("scaled", 1.0)


async def test_one_gateway_does_not_unload_what_another_wants(tmp_path: Path) -> None:
    """Two gateways on one fleet: one keeps to version 1, the other follows the alias away from it."""
    shop = Shop(tmp_path)
    shop.push(1)
    with triton(shop.shared, mode="explicit") as one:
        keeping = shop.config(one, cache="first", source=f"{shop.folder}@1")
        following = shop.config(one, cache="second")
        async with gateway(keeping) as old, gateway(following) as new:
            await old.watcher.until(scaled=(1, READY))
            await new.watcher.until(scaled=(1, READY))
            shop.push(2)
            await new.watcher.until(scaled=(2, READY))
            await new.watcher.until(scaled=(1, UNLOADED))
            assert await old.infer("scaled", 3.0) == ([3.0], "1")
            assert await new.infer("scaled", 3.0) == ([6.0], "2")


async def test_a_canary_between_published_versions(tmp_path: Path) -> None:
    """Both are loaded on every endpoint, and each answers its share."""
    shop = Shop(tmp_path)
    shop.push(1)
    shop.push(2)
    split: dict[str, Any] = {"source": f"{shop.folder}@all", "split": {"1": 50, "2": 50}}
    with triton(shop.shared, mode="explicit") as one, triton(shop.shared, mode="explicit") as two:
        async with gateway(shop.config(one, two, **split)) as served:
            await served.watcher.until(scaled=(1, READY))
            await served.watcher.until(scaled=(2, READY))
            answers = [await served.infer("scaled", 1.0) for _ in range(40)]
            assert {(rows[0], version) for rows, version in answers} == {(1.0, "1"), (2.0, "2")}
