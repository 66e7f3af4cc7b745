"""What the administration port shows: everything in short, and everything about one model."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.types import CPU, Device, VersionId, VersionOrigin, VersionState, VersionStatus
from gateway.models.desired import DesiredVersion
from gateway.models.memory import DeviceMemory
from gateway.testing import settle
from tests.admin.conftest import Admin, administration
from tests.registry.fakes import TURNS

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_index_of_an_empty_gateway(admin: Admin) -> None:
    """No model, no memory, and a registry that has been asked."""
    page = await admin.get("/")
    assert page["version"] == "1.2.3"
    assert (page["models"], page["memory"], page["now"]) == ([], [], admin.rig.wall.now_s)
    (registry,) = page["registries"]
    assert registry["registry"] == "registry prod"
    (standing,) = registry["models"]
    assert standing == {
        "model": "fraud",
        "registry": "prod",
        "source": "s3://bucket/fraud@champion",
        "status": "ok",
        "since": admin.rig.wall.now_s,
        "stale_since": None,
        "last_ok": admin.rig.wall.now_s,
        "message": "",
        "labels": ["1"],
        "aliases": {"champion": "1"},
        "next_poll_s": 5.0,
    }


async def test_a_version_in_the_index(admin: Admin) -> None:
    """Label, aliases, origin, digests, steps and claims beside what there was before."""
    await admin.load()
    page = await admin.get("/")
    assert page["ready"] is True
    (row,) = page["models"]
    assert (row["model"], row["version"], row["label"], row["aliases"]) == ("fraud", 1, "1", ["champion"])
    assert row["origin"] == {"registry": "prod", "source": "s3://bucket/fraud@champion"}
    assert (row["state"], row["reason"], row["leases"], row["since"]) == ("READY", "", 0, 7.0)
    assert row["claims"] == ["registry prod"]
    assert len(row["content_digest"]) == 64
    assert row["digest"] != row["content_digest"]
    states = [step["state"] for step in row["steps"]]
    assert states == ["NEW", "FETCHING", "VERIFYING", "LOADING", "CHECKING", "WARMING"]
    assert all(step["began"] == 7.0 and step["seconds"] >= 0 for step in row["steps"])


async def test_bytes_of_a_fetch_under_way(tmp_path: Path) -> None:
    """What has come and what there is."""
    fetching = VersionStatus(
        id=VersionId("fraud", 3, "d"), state=VersionState.FETCHING, done_bytes=12, total_bytes=100
    )
    async with administration(tmp_path) as admin:
        admin.manager.index = lambda: [fetching]  # type: ignore[method-assign]  # a moment too short to meet
        (row,) = (await admin.get("/"))["models"]
    assert (row["state"], row["done_bytes"], row["total_bytes"]) == ("FETCHING", 12, 100)
    assert (row["label"], row["origin"], row["aliases"]) == ("", None, [])


async def test_memory_by_device(tmp_path: Path) -> None:
    """What is held, and the limit where there is one."""
    held = [DeviceMemory(CPU, 10, 100), DeviceMemory(Device("cuda", 1), 7, None)]
    async with administration(tmp_path, memory=lambda: held) as admin:
        page = await admin.get("/")
    assert page["memory"] == [
        {"device": "cpu", "held_bytes": 10, "limit_bytes": 100},
        {"device": "cuda:1", "held_bytes": 7, "limit_bytes": None},
    ]


async def test_everything_about_a_model(admin: Admin) -> None:
    """Signature, devices, signing and where it stands with its registry."""
    await admin.load()
    page = await admin.get("/models/fraud")
    assert (page["model"], page["ready"], page["default_version"], page["reason"]) == ("fraud", True, 1, "")
    assert page["registry"]["status"] == "ok"
    (version,) = page["versions"]
    assert version["signature"] == {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
        "decoupled": False,
    }
    assert version["signing"] == {"signed": True, "by": "key 12:34", "detail": "1 files"}
    assert version["platform"] == "fake_platform"
    assert version["devices"][0]["device"] == "cpu"
    assert version["lineage"] == {}


async def test_a_version_that_failed_beside_the_one_that_serves(admin: Admin) -> None:
    """Its reason is there, the alias is where the registry has it now; what is not loaded is not shown."""
    await admin.load()
    digest = (await admin.get("/"))["models"][0]["content_digest"]
    admin.stage.backend.failures[digest] = "the graph has no inputs"
    admin.rig.registry.alias("champion", "2")
    await admin.rig.pass_s(20.0)
    await admin.load()
    page = await admin.get("/models/fraud")
    assert page["default_version"] == 1
    old, new = page["versions"]
    assert (old["state"], old["aliases"]) == ("READY", [])
    assert (new["state"], new["aliases"]) == ("FAILED", ["champion"])
    assert new["reason"].startswith("load: the graph has no inputs")
    assert (new["signature"], new["devices"]) == (None, [])
    assert [step["state"] for step in new["steps"]][-1] == "LOADING"


async def test_a_stale_model_says_since_when(admin: Admin) -> None:
    """The registry is down: `stale_since` is its last good answer, `message` what is served meanwhile."""
    answered_s = admin.rig.wall.now_s
    admin.rig.registry.down = True
    await admin.rig.pass_s(20.0)
    standing = (await admin.get("/"))["registries"][0]["models"][0]
    assert standing["status"] == "stale"
    assert answered_s <= standing["stale_since"] < standing["since"]
    assert "refuses connections" in standing["message"]
    assert "serving what registry 'prod' said at" in standing["message"]


async def test_a_model_without_a_version(admin: Admin) -> None:
    """It has a page of its own, with the reason."""
    admin.manager.announce("registry prod", ["fraud"], {"fraud": "resolve: no alias 'champion'"})
    page = await admin.get("/models/fraud")
    assert (page["ready"], page["default_version"], page["versions"]) == (False, None, [])
    assert page["reason"] == "resolve: no alias 'champion'"


LINEAGES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"run_id": "abc", "tags": {"team": "x"}}, {"run_id": "abc", "tags": {"team": "x"}}),
    ({"half": "a\ud800b", "\udfff": 1}, {"half": "a?b", "?": 1}),
    (
        {"large": 1 << 80, "fits": -(1 << 63), "true": True},
        {"large": str(1 << 80), "fits": -(1 << 63), "true": True},
    ),
    ({"large": 1 << 80, "far": [float("inf")]}, {"large": str(1 << 80), "far": ["inf"]}),
]


@pytest.mark.parametrize(("told", "shown"), LINEAGES)
async def test_lineage_is_shown_whatever_it_is(
    admin: Admin, told: dict[str, Any], shown: dict[str, Any]
) -> None:
    """Text that is no Unicode and numbers that JSON readers choke on are mended."""
    await with_lineage(admin, told)
    (version,) = (await admin.get("/models/fraud"))["versions"]
    assert version["lineage"] == shown


async def test_lineage_nested_without_end(admin: Admin) -> None:
    """It is cut off, and the page is there."""
    nested: Any = 1 << 80
    for _ in range(900):
        nested = [nested]
    await with_lineage(admin, {"nested": nested})
    (version,) = (await admin.get("/models/fraud"))["versions"]
    assert json.dumps(version["lineage"]).count("[") < 40


async def with_lineage(admin: Admin, lineage: dict[str, Any]) -> None:
    """Load the champion as if the registry told this of it."""
    (wanted,) = admin.rig.source.wanted()
    assert isinstance(wanted, DesiredVersion)
    assert isinstance(wanted.origin, VersionOrigin)
    told = dataclasses.replace(wanted, origin=dataclasses.replace(wanted.origin, lineage=lineage))
    admin.manager.apply(admin.rig.source.name, [told])
    await settle(TURNS)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/models/fruad", "no model 'fruad'; did you mean 'fraud'?"),
        ("/models/iris", "no model 'iris'; there are: a/b, fraud"),
        ("/models/" + "x" * 300, "..."),
    ],
)
async def test_an_unknown_model(admin: Admin, path: str, words: str) -> None:
    """404, with the names that may have been meant."""
    admin.manager.announce("repository", ["fraud", "a/b"])
    received = await admin.ask("GET", path)
    assert received.status == 404
    assert words in received.error
    assert len(received.error) < 250


async def test_an_unknown_model_where_there_is_none(admin: Admin) -> None:
    """404 all the same."""
    received = await admin.ask("GET", "/models/iris")
    assert (received.status, received.error) == (404, "no model 'iris'; there is no model here")


async def test_a_name_with_a_slash(admin: Admin) -> None:
    """It is percent-encoded in the path, as everywhere."""
    admin.manager.announce("repository", ["a/b"])
    assert (await admin.get("/models/a%2Fb"))["model"] == "a/b"
    assert (await admin.ask("GET", "/models/a/b")).status == 404


async def test_only_reading_is_allowed_of_pages(admin: Admin) -> None:
    """405 with what is allowed."""
    received = await admin.ask("POST", "/models/fraud")
    assert (received.status, received.headers["allow"]) == (405, "get, head")
