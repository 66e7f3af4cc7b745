"""Two real gateways of one user share an artifact cache: each version is downloaded once, and stays."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from loadtests.soak_models import OFFSET
from loadtests.soak_registry_models import table_model
from loadtests.soak_server import GatewayProcess
from tests.acceptance.bucket import CountingBucket, counting_bucket
from tests.acceptance.process import until
from tests.servers.fake_bucket import BUCKET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL_BYTES = 40_000_000
PART_BYTES = 16 << 20
"""The cache's default; a part is one read of the bucket."""
STARTS = [0, PART_BYTES, 2 * PART_BYTES]
HOUR_S = 3600.0


@pytest.fixture
def bucket() -> Iterator[CountingBucket]:
    with counting_bucket() as bucket:
        yield bucket


@dataclass(frozen=True)
class Stage:
    """Gateways that share one cache directory and follow aliases of one bucket."""

    directory: Path
    bucket: CountingBucket

    @property
    def cache(self) -> Path:
        """The shared directory."""
        return self.directory / "cache"

    def publish(self, version: int, size_bytes: int = MODEL_BYTES) -> None:
        """Write a version of the model; it answers x + version."""
        self.bucket.put(key(version), model(version, size_bytes))

    def move(self, alias: str, version: int) -> None:
        """Let an alias name a version."""
        self.bucket.put(f"{OFFSET}/aliases/{alias}", b"%d" % version)

    def gateway(self, name: str, alias: str, **settings: Any) -> GatewayProcess:
        """Return a gateway that is not started yet."""
        folder = self.directory / name
        folder.mkdir(exist_ok=True)
        store = {
            "url": f"s3://{BUCKET}",
            "endpoint": self.bucket.endpoint,
            "region": "us-east-1",
            "anonymous": True,
            "allow_http": True,
        }
        looks = {"poll_interval_s": 0.2, "start_timeout_s": 60.0}
        registry = {"object_store": store, "keep_previous": 0, **looks}
        config = {
            "server": {"ports": {"http": 0, "grpc": 0, "metrics": 0, "admin": 0}},
            "registries": {"bucket": registry},
            "cache": {"directory": str(self.cache), "free_disk_reserve": 0, **settings},
            "models": [{"name": OFFSET, "source": f"s3://{BUCKET}/{OFFSET}@{alias}"}],
        }
        return GatewayProcess(config, folder)


@pytest.fixture
def stage(tmp_path: Path, bucket: CountingBucket) -> Stage:
    return Stage(tmp_path, bucket)


@cache
def model(version: int, size_bytes: int) -> bytes:
    return table_model(version, size_bytes).SerializeToString()


def key(version: int) -> str:
    """Where a version's file is in the bucket."""
    return f"{OFFSET}/{version}/model.onnx"


def serves(gateway: GatewayProcess, version: int) -> bool:
    """Whether requests are answered by that version, and as it should."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0.0] * 4}
    url = f"http://127.0.0.1:{gateway.http_port}/v2/models/{OFFSET}/infer"
    body = json.dumps({"inputs": [tensor]}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as answer:
        document = json.load(answer)
    assert document["outputs"][0]["data"] == [float(document["model_version"])] * 4
    return bool(document["model_version"] == str(version))


def versions(gateway: GatewayProcess) -> dict[int, dict[str, Any]]:
    """Return what the administration port shows of each version."""
    url = f"http://127.0.0.1:{gateway.ready['admin_port']}/models/{OFFSET}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return {row["version"]: row for row in json.load(answer)["versions"]}


def test_started_at_once_they_download_once(stage: Stage) -> None:
    """Of two gateways that want one version, one reads each byte and the other waits; both serve."""
    stage.publish(1)
    stage.bucket.held.add(key(1))
    pair = ("early", "late")
    for alias in pair:
        stage.move(alias, 1)
    with ExitStack() as stack, ThreadPoolExecutor(2) as threads:
        starting = [threads.submit(stack.enter_context, stage.gateway(name, name)) for name in pair]
        # Both know what to fetch, and one of them fetches it.
        until(lambda: all(stage.bucket.asked[f"{OFFSET}/aliases/{alias}"] for alias in pair))
        until(lambda: len(stage.bucket.asked[key(1)]) >= len(STARTS))
        stage.bucket.let_go()
        for started in starting:
            assert serves(started.result(), 1)
    assert sorted(stage.bucket.asked[key(1)]) == STARTS


def test_one_killed_in_mid_download_leaves_its_part_to_the_other(stage: Stage) -> None:
    """What the killed gateway had fetched is not fetched again, and what it had not is."""
    for version in (1, 2):
        stage.publish(version)
    for alias in ("early", "late"):
        stage.move(alias, 1)
    with stage.gateway("killed", "early") as killed, stage.gateway("other", "late") as other:
        assert serves(killed, 1)
        assert serves(other, 1)
        assert sorted(stage.bucket.asked[key(1)]) == STARTS
        stage.bucket.held.add(key(2))
        stage.move("early", 2)
        until(lambda: any(path.stat().st_size for path in stage.cache.rglob("parts.jsonl")))
        until(lambda: len(stage.bucket.asked[key(2)]) >= len(STARTS))
        stage.move("late", 2)
        until(lambda: versions(other).get(2, {}).get("state") == "FETCHING")
        killed.kill()
        killed.wait()
        stage.bucket.let_go()
        until(lambda: serves(other, 2))
    assert sorted(stage.bucket.asked[key(2)]) == sorted([*STARTS, *STARTS[1:]])


def test_collecting_in_one_keeps_what_the_other_uses(stage: Stage) -> None:
    """What nobody wants goes; what another gateway serves stays, and starts it again without the bucket."""
    for version in (1, 2, 3):
        stage.publish(version, 100_000)
    stage.move("blue", 1)
    stage.move("green", 2)
    collecting = {"collect_interval_s": 0.2, "max_age_s": 1.0}
    with stage.gateway("blue", "blue") as blue, stage.gateway("green", "green", **collecting) as green:
        kept = {versions(blue)[1]["content_digest"], versions(green)[2]["content_digest"]}
        stage.move("green", 3)
        until(lambda: serves(green, 3))
        stage.move("green", 2)
        until(lambda: serves(green, 2))
        artifacts = stage.cache / "artifacts" / "artifacts"
        assert len(list(artifacts.iterdir())) == 3
        then_s = time.time() - HOUR_S

        def is_collected() -> bool:
            # As if nobody had used any of them for an hour; again and again, since what still unloads counts
            # as used by then.
            for lock in (stage.cache / "artifacts" / "locks").glob("*.lock"):
                with suppress(FileNotFoundError):
                    os.utime(lock, (then_s, then_s))
            return {path.name for path in artifacts.iterdir()} == kept

        until(is_collected)
        assert serves(blue, 1)
        assert serves(green, 2)
    stage.bucket.content.objects.clear()
    with stage.gateway("blue", "blue") as again:
        assert serves(again, 1)
