"""Faults of the gateway's own host, and kill -9 amid a fetch: each with a gateway and a cache of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.registry.verification.signed_models import new_signer, sign, write_version
from tests.robustness.registry_door import Door, slow
from tests.robustness.registry_scene import (
    Gateway,
    Shelf,
    Traffic,
    configuration,
    followed,
    onnx_version,
    registry,
    renamed,
    slow_to_load,
    started,
    wait_for,
    with_ballast,
    write_secrets,
)
from tests.servers.seaweed import BUCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.servers.seaweed import Seaweed

pytestmark = pytest.mark.slow

NAME = "model"
MIB = 1 << 20
UNPRIVILEGED = "--bounding-set=-dac_override,-dac_read_search,-fowner"
"""Takes from root what lets it pass by the modes of files."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to another user")
needs_setpriv = pytest.mark.skipif(shutil.which("setpriv") is None, reason="there is no setpriv command")


@dataclass(frozen=True, slots=True)
class Host:
    """A model in a bucket, and where a gateway that follows it keeps its files.

    Attributes:
        shelf: holds version 1, which the alias names.
        door: before the bucket.
        directory: everything of the gateway's, its cache as `cache`.
        secrets: the bucket's credentials.
    """

    shelf: Shelf
    door: Door
    directory: Path
    secrets: Mapping[str, Path]

    @property
    def cache(self) -> Path:
        """The directory of the gateway's cache."""
        return self.directory / "cache"

    def publish(self, label: str, files: Mapping[str, bytes] | bytes) -> None:
        """Upload a version, and let the alias name it."""
        self.shelf.publish(NAME, label, files)
        self.shelf.point(NAME, label)

    @contextmanager
    def gateway(
        self, *before: str, settings: Mapping[str, Any] | None = None, **sections: Any
    ) -> Iterator[Gateway]:
        """Run a gateway; `before` runs it, `settings` are of the registry."""
        registries = {"store": registry(self.shelf, self.door.endpoint, self.secrets, **(settings or {}))}
        config = configuration(registries, [followed(self.shelf, NAME)], self.cache, **sections)
        with started(config, self.directory, *before) as gateway:
            yield gateway


@pytest.fixture
def host(s3: Seaweed, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Host]:
    shelf = Shelf(s3.bucket(BUCKET), f"hosts/{request.node.name.replace('[', '/').rstrip(']')}")
    with Door(s3.endpoint) as door:
        host = Host(shelf, door, tmp_path, write_secrets(s3, tmp_path))
        host.publish("1", onnx_version(1))
        yield host


@contextmanager
def traffic(gateway: Gateway, *versions: str) -> Iterator[Traffic]:
    """Ask for answers all the while; these versions alone may answer, in this order."""
    with Traffic(gateway.ready["http_port"], NAME) as asking:
        asking.reaches(versions[0])
        yield asking
        asking.reaches(versions[-1])
    assert asking.problems == []
    assert asking.served_by == list(versions)


def stands(asking: Traffic) -> None:
    """Check that version 1 alone has answered, and still does."""
    asking.goes_on()
    assert asking.served_by == ["1"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Two megabytes, mounted where the cache is to be."""
    place = tmp_path / "cache"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_the_disk_is_full(small_disk: Path, host: Host) -> None:
    """A version that the disk has no room for is refused with numbers, and fetched when there is room."""
    with host.gateway() as gateway, traffic(gateway, "1", "2") as asking:
        filler = small_disk / "filler"
        filler.write_bytes(bytes(3 * MIB // 2))
        host.publish("2", with_ballast(2, MIB))
        words = [
            "fetch: version '2' of 'model' needs 1.0 MB more on the disk of the artifact cache",
            "free some",
        ]
        gateway.failure(NAME, 2, *words, "tried again in")
        stands(asking)
        filler.unlink()


def test_nothing_more_can_be_written(small_disk: Path, host: Host) -> None:
    """A disk without a free byte is said to be full; what is loaded serves on, and looks go on."""
    with host.gateway() as gateway, traffic(gateway, "1", "2") as asking:
        filler = small_disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(small_disk).free))
        host.publish("2", onnx_version(2))
        gateway.failure(NAME, 2, "fetch: ", "the disk of the artifact cache", "free some", "tried again in")
        stands(asking)
        filler.unlink()


@needs_root
@needs_setpriv
def test_the_cache_is_another_user_s(host: Host) -> None:
    """It is said whose the directory must be; given back, the version is fetched."""
    with host.gateway("setpriv", UNPRIVILEGED) as gateway, traffic(gateway, "1", "2") as asking:
        os.chown(host.cache, pwd.getpwnam("nobody").pw_uid, -1)
        host.cache.chmod(0o700)
        host.publish("2", onnx_version(2))
        words = ["the artifact cache may not be read or written (Permission denied)", "must belong to user 0"]
        gateway.failure(NAME, 2, "fetch: version '2' of 'model'", *words, "tried again in")
        stands(asking)
        os.chown(host.cache, 0, -1)


def test_the_memory_budget_is_too_small(host: Host) -> None:
    """What would not fit beside the version that serves is refused with numbers and what to do."""
    host.publish("1", with_ballast(1, 4 * MIB))
    budget = {"limits": {"cpu": 60_000_000}, "wait_s": 0.1}
    with host.gateway(memory=budget) as gateway, traffic(gateway, "1", "2") as asking:
        host.publish("2", with_ballast(2, 50 * MIB))
        words = ["on cpu, budget 60 MB of which", "held by: model v1", "raise memory.limits.cpu"]
        gateway.failure(NAME, 2, "load: needs about", *words)
        stands(asking)
        host.publish("2", with_ballast(2, 4 * MIB))


def test_a_byte_changes_in_the_cache(host: Host) -> None:
    """Before a restart: it is never loaded, is fetched again, and without the registry it is said why not."""
    with host.gateway() as gateway:
        assert gateway.has(NAME, 1, "READY")
    (file,) = host.cache.rglob("files/model.onnx")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o600)
    file.write_bytes(content)
    host.door.close()
    with host.gateway(settings={"start_timeout_s": 0.5}) as gateway:
        words = ["the copy in the artifact cache was damaged ('model.onnx' has changed since)"]
        gateway.failure(NAME, 1, *words, "fetching it again failed", "refuses connections", "tried again in")
        host.door.open()
        wait_for(lambda: gateway.has(NAME, 1, "READY"), lambda: str(gateway.index(NAME)))
        with traffic(gateway, "1"):
            pass


@dataclass(frozen=True, slots=True)
class Held:
    """How a version is kept from getting on, and let go."""

    hold: Callable[[], None]
    release: Callable[[], None]


def ways_to_hold(host: Host, key: Path) -> dict[str, Held]:
    """Return by state how version 2 is held in it."""
    kept, file = key.read_bytes(), f"{NAME}/2/model.onnx"

    def block_verification() -> None:
        key.unlink()
        os.mkfifo(key)  # who reads it waits for a writer

    def restore_key() -> None:
        key.unlink()
        key.write_bytes(kept)

    return {
        "FETCHING": Held(lambda: host.door.spoil(file, slow), lambda: host.door.mend(file)),
        "VERIFYING": Held(block_verification, restore_key),
        "LOADING": Held(lambda: None, lambda: None),  # the model takes its time
    }


@pytest.mark.parametrize("registry_is", ["up", "down"])
@pytest.mark.parametrize("state", ["FETCHING", "VERIFYING", "LOADING"])
def test_kill_9(host: Host, tmp_path: Path, state: str, registry_is: str) -> None:
    """Killed in any state the next gateway serves what this one did, until the new version can."""
    signer = new_signer(tmp_path, "signer")
    held = ways_to_hold(host, signer.public)[state]
    new = slow_to_load(2) if state == "LOADING" else onnx_version(2)
    for label, content in (("1", onnx_version(1)), ("2", new)):
        version = sign(write_version(tmp_path / label, {"model.onnx": content}), signer)
        host.shelf.publish(NAME, label, {path.name: path.read_bytes() for path in version.iterdir()})
    settings = {
        "read_timeout_s": 60.0,
        "start_timeout_s": 1.0,
        "signatures": {"policy": "require", "public_key": str(signer.public)},
    }
    with host.gateway(settings=settings) as gateway:
        with traffic(gateway, "1") as asking:
            held.hold()
            host.shelf.point(NAME, "2")
            wait_for(lambda: gateway.has(NAME, 2, state), lambda: f"{state}: {gateway.page(NAME)}")
            stands(asking)
        assert gateway.state(NAME, 2).upper() == state
        gateway.kill()
    held.release()
    with ExitStack() as stack:
        words = ["refuses connections", "serving what registry 'store' said at"]
        if registry_is == "down":
            host.door.close()
        gateway = stack.enter_context(host.gateway(settings=settings))
        asking = stack.enter_context(Traffic(gateway.ready["http_port"], NAME))
        if registry_is == "down" and state == "LOADING":  # its files are here: they need no registry
            gateway.serves_although(NAME, 2, *words)
        elif registry_is == "down":
            gateway.serves_although(NAME, 1, *words)
            stands(asking)
        if registry_is == "down":
            host.door.open()
            wait_for(
                lambda: gateway.page(NAME)["registry"]["status"] == "ok",
                lambda: "the registry to be followed",
            )
        asking.reaches("2")
    assert asking.problems == []
    assert asking.served_by in (["1", "2"], ["2"])


@pytest.mark.parametrize("fault", ["corrupt", "breaking"])
def test_a_restart_amid_a_fault(host: Host, fault: str) -> None:
    """A version that was refused is refused again, and the one that served serves again."""
    bad = {"corrupt": b"no model", "breaking": renamed(2)}[fault]
    words = {"corrupt": "not a complete ONNX file", "breaking": "would break clients of version 1"}[fault]
    with host.gateway() as gateway, traffic(gateway, "1") as asking:
        host.publish("2", bad)
        gateway.failure(NAME, 2, words)
        stands(asking)
    with host.gateway() as gateway, traffic(gateway, "1", "2") as asking:
        gateway.failure(NAME, 2, words)
        stands(asking)
        host.publish("2", onnx_version(2))
