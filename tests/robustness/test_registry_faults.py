"""What can be wrong with a registry, its files, or a version: the one before serves on, and why is told.

One real gateway follows a real S3 server through a door that spoils answers. Each test has a model of its
own: version 1 serves, version 2 meets a fault, the fault is mended, and version 2 comes to serve by itself.
All the while somebody asks for answers.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from gateway.registry.cache import Manifest, ManifestFile
from tests.registry.verification.signed_models import Signer, new_signer, sign, write_version
from tests.robustness.registry_door import Door, fault, flipped, overwritten, slow, truncated
from tests.robustness.registry_scene import (
    Gateway,
    Shelf,
    Traffic,
    configuration,
    followed,
    golden,
    onnx_version,
    registry,
    renamed,
    started,
    wait_for,
    write_secrets,
)
from tests.servers.seaweed import BUCKET

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.robustness.registry_door import Spoiler
    from tests.servers.seaweed import Seaweed

pytestmark = pytest.mark.slow

PLAIN = ["listing-500", "corrupt", "breaking", "golden", "no-model"]
DOWNLOADS: Mapping[str, tuple[Spoiler, list[str]]] = {
    "slow": (slow, ["nothing for 0.5 s"]),
    "artifact-500": (fault(500, "InternalError"), ["s3://", "has a fault of its own (500 InternalError)"]),
    "artifact-404": (fault(404, "NoSuchKey"), ["s3://", "has no such thing (404 NoSuchKey)"]),
    "truncated": (truncated, ["s3://", "broke the connection"]),
    "overwritten": (overwritten, ["s3://", "is another file", "the next look finds it"]),
}
"""Model -> what becomes of the file of its version 2, and what must be said of it."""
SIGNED = ["unsigned", "stranger", "extra", "damaged"]
SAME = onnx_version(1)
"""The content that the configuration pins: any version with another is refused."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The gateway, its registries, and what is needed to put versions there.

    Attributes:
        plain: a registry that does not look at signatures.
        signed: one that wants them of `signer`.
        away: one behind a door of its own, which can be closed.
        door: before `plain` and `signed`.
    """

    gateway: Gateway
    plain: Shelf
    signed: Shelf
    away: Shelf
    door: Door
    away_door: Door
    signer: Signer
    stranger: Signer

    @contextmanager
    def traffic(self, name: str, then: str = "2", factor: int | None = None) -> Iterator[Traffic]:
        """Ask for answers all the while, and until version `then` gives them; none but it and 1 may."""
        with Traffic(self.gateway.ready["http_port"], name, factor) as traffic:
            traffic.reaches("1")
            yield traffic
            traffic.reaches(then)
        assert traffic.problems == []
        assert traffic.served_by == ["1", then]


def signed_files(directory: Path, signer: Signer, content: bytes) -> dict[str, bytes]:
    """Return a version's files with the signature of `signer`."""
    sign(write_version(directory, {"model.onnx": content}), signer)
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def content_digest(content: bytes) -> str:
    """Return the content digest of a version with nothing but this model."""
    return Manifest.of([ManifestFile("model.onnx", len(content), hashlib.sha256(content).hexdigest())]).digest


@pytest.fixture(scope="module")
def scene(s3: Seaweed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("faults")
    store = s3.bucket(BUCKET)
    plain, signed, away = (Shelf(store, f"faults/{name}") for name in ("plain", "signed", "away"))
    signer, stranger = new_signer(directory, "signer"), new_signer(directory, "stranger")
    secrets = write_secrets(s3, directory)
    for name in [*PLAIN, *DOWNLOADS, "allowed", "pinned", "pinned-damaged"]:
        plain.publish(name, "1", SAME)
        plain.point(name, "1")
    for name in SIGNED:
        signed.publish(name, "1", signed_files(directory / name, signer, SAME))
        signed.point(name, "1")
    away.publish("down", "1", SAME)
    away.point("down", "1")
    pin = {"digest": content_digest(SAME)}
    models = [
        *(followed(plain, name) for name in [*PLAIN, *DOWNLOADS]),
        followed(plain, "allowed", allow_breaking=True),
        followed(plain, "pinned", **pin),
        followed(plain, "pinned-damaged", **pin),
        *(followed(signed, name) for name in SIGNED),
        followed(away, "down"),
    ]
    with ExitStack() as stack:
        door, away_door = (stack.enter_context(Door(s3.endpoint)) for _ in range(2))
        wanted = {"signatures": {"policy": "require", "public_key": str(signer.public)}}
        registries: dict[str, Any] = {
            "plain": registry(plain, door.endpoint, secrets),
            "signed": registry(signed, door.endpoint, secrets, **wanted),
            "away": registry(away, away_door.endpoint, secrets),
        }
        config = configuration(registries, models, directory / "cache")
        gateway = stack.enter_context(started(config, directory))
        yield Scene(gateway, plain, signed, away, door, away_door, signer, stranger)


def test_the_registry_is_down(scene: Scene) -> None:
    """It is said to refuse connections, and since when what it said last is served."""
    with scene.traffic("down") as traffic:
        scene.away_door.close()
        scene.gateway.serves_although(
            "down", 1, "refuses connections: is it running", "serving what registry 'away' said at 20"
        )
        scene.away.publish("down", "2", onnx_version(2))
        scene.away.point("down", "2")
        traffic.goes_on()
        assert traffic.served_by == ["1"]
        scene.away_door.open()


def test_every_listing_fails(scene: Scene) -> None:
    """A store that answers 500 is said to have a fault of its own."""
    scene.plain.publish("listing-500", "2", onnx_version(2))
    with scene.traffic("listing-500") as traffic:
        scene.door.spoil("listing-500", fault(500, "InternalError"))
        scene.gateway.serves_although(
            "listing-500",
            1,
            "has a fault of its own (500 InternalError)",
            "serving what registry 'plain' said",
        )
        scene.plain.point("listing-500", "2")
        traffic.goes_on()
        assert traffic.served_by == ["1"]
        scene.door.mend("listing-500")


def test_artifacts_cannot_be_read(scene: Scene) -> None:
    """Each fault of a download is told with the file, and it is tried again; all of them at once."""
    with ExitStack() as stack:
        traffic = {name: stack.enter_context(scene.traffic(name)) for name in DOWNLOADS}
        for name, (spoiled, _) in DOWNLOADS.items():
            scene.door.spoil(f"{name}/2/model.onnx", spoiled)
            scene.plain.publish(name, "2", onnx_version(2))
            scene.plain.point(name, "2")
        for name, (_, words) in DOWNLOADS.items():
            scene.gateway.failure(name, 2, "fetch: '", "model.onnx'", f"'{name}", *words, "tried again in")
            traffic[name].goes_on()
            assert traffic[name].served_by == ["1"]
            scene.door.mend(f"{name}/2/model.onnx")


@pytest.mark.parametrize(
    ("name", "bad", "good", "words"),
    [
        (
            "corrupt",
            b"no model at all",
            onnx_version(2),
            ["load: ", "not a complete ONNX file: truncated, corrupt"],
        ),
        (
            "breaking",
            renamed(2),
            onnx_version(2),
            [
                "check: it would break clients of version 1",
                "input 'x' is gone (renamed to 'features'?)",
                "set allow_breaking: true",
            ],
        ),
        (
            "golden",
            {"model.onnx": onnx_version(2), "golden.jsonl": golden(3)},
            {"golden.jsonl": golden(2)},
            ["golden test: golden.jsonl", "output 'y'", "expected"],
        ),
    ],
)
def test_the_version_cannot_serve(scene: Scene, name: str, bad: Any, good: Any, words: list[str]) -> None:
    """What is wrong with the files is told with the step that found it; only other files are tried again."""
    with scene.traffic(name) as traffic:
        scene.plain.publish(name, "2", bad)
        scene.plain.point(name, "2")
        told = scene.gateway.failure(name, 2, *words)
        assert "tried again" not in told
        traffic.goes_on()
        assert traffic.served_by == ["1"]
        scene.plain.publish(name, "2", good)


def test_the_version_holds_no_model(scene: Scene) -> None:
    """What can be told from the names of its files is told without fetching it."""
    with scene.traffic("no-model") as traffic:
        scene.plain.publish("no-model", "2", {"weights.bin": b"w"})
        scene.plain.point("no-model", "2")
        words = [
            "alias 'live' names version '2'",
            "none of its 1 files is named *.onnx",
            "serving '1' as before",
        ]
        scene.gateway.serves_although("no-model", 1, *words, status="missing")
        traffic.goes_on()
        assert traffic.served_by == ["1"]
        scene.plain.publish("no-model", "2", onnx_version(2))


def test_a_breaking_version_that_is_allowed(scene: Scene) -> None:
    """With allow_breaking it takes over, and it is the clients of the other that fail from then on."""
    scene.plain.publish("allowed", "2", renamed(2))
    scene.plain.point("allowed", "2")
    wait_for(lambda: scene.gateway.has("allowed", 2, "READY"), lambda: str(scene.gateway.page("allowed")))
    wait_for(lambda: scene.gateway.state("allowed", 1) != "ready", lambda: "version 1 to go")
    assert [i["name"] for i in scene.gateway.versions("allowed")[2]["signature"]["inputs"]] == ["features"]


def test_the_version_is_not_the_pinned_one(scene: Scene) -> None:
    """Other content than the configuration pins is refused with both digests."""
    with scene.traffic("pinned", factor=1) as traffic:
        scene.plain.publish("pinned", "2", onnx_version(2))
        scene.plain.point("pinned", "2")
        digests = [content_digest(onnx_version(2)), f"the configuration pins {content_digest(SAME)}"]
        told = scene.gateway.failure("pinned", 2, "verify: ", *digests, "correct the digest when")
        assert "tried again" not in told
        traffic.goes_on()
        assert traffic.served_by == ["1"]
        scene.plain.publish("pinned", "2", SAME)


def test_a_byte_changes_on_the_way(scene: Scene) -> None:
    """What arrives otherwise than pinned, twice, is refused; the next version that arrives sound serves."""
    with scene.traffic("pinned-damaged", "3", factor=1) as traffic:
        scene.door.spoil("pinned-damaged/2/model.onnx", flipped)
        scene.plain.publish("pinned-damaged", "2", SAME)
        scene.plain.point("pinned-damaged", "2")
        scene.gateway.failure(
            "pinned-damaged", 2, "verify: ", "has the content digest", "the configuration pins"
        )
        traffic.goes_on()
        assert traffic.served_by == ["1"]
        scene.plain.publish("pinned-damaged", "3", SAME)
        scene.plain.point("pinned-damaged", "3")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unsigned", ["the version is not signed: it has no file 'model.sig'"]),
        ("stranger", ["was made with another key than the one configured"]),
        ("extra", ["'extra.py' is not covered by the signature: sign every file of the version"]),
        ("damaged", ["'model.onnx' is not as signed: changed or damaged since"]),
    ],
)
def test_the_version_is_not_signed_as_it_must_be(
    scene: Scene, tmp_path: Path, name: str, words: list[str]
) -> None:
    """A version serves when each of its files is signed, as it is, by the signer of the policy alone."""
    right = signed_files(tmp_path / "right", scene.signer, onnx_version(2))
    wrong = {
        "unsigned": {"model.onnx": onnx_version(2)},
        "stranger": signed_files(tmp_path / "wrong", scene.stranger, onnx_version(2)),
        "extra": right | {"extra.py": b"import os"},
        "damaged": right | {"model.onnx": onnx_version(2).replace(b"factor", b"fbctor")},
    }
    with scene.traffic(name) as traffic:
        scene.signed.publish(name, "2", wrong[name])
        scene.signed.point(name, "2")
        told = scene.gateway.failure(name, 2, "verify: ", *words)
        assert "tried again" not in told
        traffic.goes_on()
        assert traffic.served_by == ["1"]
        scene.signed.publish(name, "2", right)
        if name == "extra":
            scene.signed.remove(name, "2", "extra.py")
    signing = scene.gateway.versions(name)[2]["signing"]
    assert signing["signed"], signing
