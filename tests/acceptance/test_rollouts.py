"""Rollouts and splits of a real gateway over real connections: who gets what, and what files may do to it."""

from __future__ import annotations

import asyncio
import random
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from gateway._proto import open_inference_pb2 as pb
from gateway.config.rollout_file import content_hash, parse_rollout
from gateway.core.errors import ConfigError
from loadtests import soak_rollouts_scene as scene
from loadtests.soak_grpc import channel, unary
from loadtests.soak_load import grpc_infer
from loadtests.soak_models import OFFSET, WIDTH
from loadtests.soak_rollouts_scene import RolloutGateway, bucket, each_once, put, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from loadtests.soak_rollouts_scene import Answers

SPLIT: Final = "split"
TORN: Final = "torn"
ALIASED: Final = "aliased"
USERS: Final = [f"user-{number}" for number in range(5_000)]
FEW: Final = USERS[:200]
GOLDEN: Final = {"user-0": 699916, "user-1": 378818, "user-2": 781885, "user-3": 216248}
"""Buckets under the salt `soak`, which no release may change."""
FILES: Final = 200
SHARE_PPM: Final = 300_000
WEIGHT: Final = {"weight": "30%", "min_bake": "10m", "max_bake": "1h", "gates": ["safety"]}
GATES: Final = {"safety": [{"errors": {"min_requests": 100}}]}


def infer(model: str = OFFSET, version: int | None = None) -> str:
    return f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a gateway, with three versions of `offset` in a repository and on a shelf."""
    directory = tmp_path_factory.mktemp("rollouts")
    shelf = directory / "shelf" / OFFSET
    shutil.copytree(scene.repository(directory, 2, 3) / OFFSET, shelf)
    (shelf / "aliases").mkdir()
    (shelf / "aliases" / "champion").write_text("1")
    (shelf / "aliases" / "challenger").write_text("2")
    return directory


@pytest.fixture(scope="module")
def config(place: Path) -> dict[str, Any]:
    settings = scene.settings(OFFSET, SPLIT, TORN)
    settings["registries"] = {"shelf": {"directory": {"path": "shelf"}, "poll_interval_s": 0.2}}
    settings["cache"] = {"directory": "cache"}
    settings["models"].append({"name": ALIASED, "source": f"shelf/{OFFSET}@champion"})
    return settings


@pytest.fixture(scope="module")
def gateway(place: Path, config: dict[str, Any]) -> Iterator[RolloutGateway]:
    with RolloutGateway(config, place) as running:
        yield running


@contextmanager
def filed(place: Path, name: str, content: dict[str, Any]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Have a file in force for a while; gives what replaces it."""
    put(place, content, name)
    try:
        yield lambda other: put(place, other, name)
    finally:
        (place / "rollouts" / f"{name}.yaml").unlink()


def asked(gateway: RolloutGateway, users: list[str], path: str) -> Answers:
    answers = asyncio.run(each_once(gateway.http_port, users, path))
    assert (answers.problems, answers.refused) == ([], 0)
    assert len(answers.all) == len(users)
    return answers


def versions(answers: Answers) -> dict[str, int]:
    return {answer.user: answer.version for answer in answers.all}


def split(weights: dict[int, int]) -> dict[str, Any]:
    assign = {"key": [{"header": "x-user-id"}], "hash": {"salt": "soak"}}
    return {
        "apiVersion": "gateway/v1",
        "kind": "Split",
        "model": SPLIT,
        "split": weights,
        "assign": assign,
    }


async def over_grpc(gateway: RolloutGateway, users: list[str]) -> dict[str, tuple[str, str, int]]:
    """Return the arm by metadata, by parameter, and the version that answered each user."""
    found = {}
    async with channel(gateway.grpc_port) as opened:
        infer = unary(opened)
        for user in users:
            call = infer(grpc_infer((1.0,) * WIDTH), metadata=(("x-user-id", user),))
            answer = pb.ModelInferResponse.FromString(await call)
            metadata = {key: str(value) for key, value in await call.trailing_metadata() or ()}
            arm = answer.parameters["gateway_arm"].string_param
            found[user] = (metadata["x-gateway-arm"], arm, int(answer.model_version))
    return found


def test_golden_buckets() -> None:
    assert {user: bucket(user) for user in GOLDEN} == GOLDEN


def test_a_user_keeps_the_arm_over_restarts_and_protocols(
    place: Path, config: dict[str, Any], tmp_path: Path
) -> None:
    """By its bucket alone: over HTTP and gRPC, and over restarts; an explicit version bypasses it."""
    expected = {user: 2 if bucket(user) < SHARE_PPM else 1 for user in FEW}
    assert 40 < sum(version == 2 for version in expected.values()) < 80
    shutil.copytree(place / "repository", tmp_path / "repository")
    (tmp_path / "rollouts").mkdir()
    put(tmp_path, scene.rollout(2, WEIGHT, gates=GATES))
    seen: list[dict[str, Any] | None] = []
    for _ in range(2):
        with RolloutGateway(scene.settings(), tmp_path) as gateway:
            until(lambda: gateway.shares().get("canary") == 0.3)
            known = counted(gateway, 0)
            explicit = asked(gateway, FEW, infer(version=1)).all + asked(gateway, FEW, infer(version=2)).all
            assert [(a.arm, a.version) for a in explicit] == [("", 1)] * len(FEW) + [("", 2)] * len(FEW)
            answers = asked(gateway, FEW, infer())
            assert versions(answers) == expected
            assert {a.arm for a in answers.all if a.version == 2} == {"canary"}
            arms = asyncio.run(over_grpc(gateway, FEW))
            names = {1: "stable", 2: "canary"}
            assert arms == {user: (names[number], names[number], number) for user, number in expected.items()}
            routed = known + 2 * len(FEW)
            assert counted(gateway, routed) == routed, "explicit versions are no evidence"
            seen.append(gateway.rollout())
            gateway.terminate()
            assert gateway.wait() == 0
    before, after = seen
    assert before is not None
    assert after is not None
    for same in ("rollout_id", "step", "targets", "phase"):
        assert before[same] == after[same]
    assert after["epoch"] >= before["epoch"]


def counted(gateway: RolloutGateway, at_least: int) -> int:
    """Wait until so many requests are evidence, those of earlier lives included; return how many are."""

    def now() -> int:
        found = gateway.rollout()
        assert found is not None
        return sum(arm["requests_all"] for arm in found["arms"].values())

    until(lambda: now() >= at_least)
    return now()


def test_shares_of_a_split_are_exact_and_move_nobody_back(gateway: RolloutGateway, place: Path) -> None:
    """Of 5,000 users; every one gets what the bucket says, and from 90/10 to 50/50 nobody loses version 2."""
    with filed(place, SPLIT, split({1: 90, 2: 10})) as replaced:
        until(lambda: gateway.shares(SPLIT).get("2") == 0.1 and gateway.is_ready(2, SPLIT))
        tenth = versions(asked(gateway, USERS, infer(SPLIT)))
        replaced(split({1: 50, 2: 50}))
        until(lambda: gateway.shares(SPLIT).get("2") == 0.5)
        half = versions(asked(gateway, USERS, infer(SPLIT)))
    for answered, ppm in ((tenth, 100_000), (half, 500_000)):
        assert answered == {user: 2 if bucket(user) < ppm else 1 for user in USERS}
    assert not [user for user in USERS if tenth[user] == 2 and half[user] == 1]


def test_torn_files_leave_the_last_good_one_in_force(gateway: RolloutGateway, place: Path) -> None:
    """Half-written, torn and garbled ones: the rollout does not feel them, and what is wrong is said."""
    chance = random.Random(5)
    path = place / "rollouts" / f"{TORN}.yaml"
    good = scene.rollout(2, WEIGHT, gates=GATES, name=TORN, model=TORN)
    valid: set[str] = set()
    with filed(place, TORN, good):
        until(lambda: gateway.is_in("baking", name=TORN))
        before = gateway.rollout(TORN)
        assert before is not None
        valid.add(before["file"]["active_hash"])
        content = path.read_bytes()
        for number in range(FILES):
            written = garbled(content, chance)
            if number % 2:
                put(place, written, TORN)
            else:
                path.write_bytes(written)
            if is_valid(written):
                valid.add(content_hash(written))
            if not number % 10:
                now = gateway.rollout(TORN)
                assert now is not None
                assert now["file"]["active_hash"] in valid
                assert set(versions(asked(gateway, FEW[:20], infer(TORN))).values()) == {1, 2}
        put(place, content[: len(content) // 2], TORN)
        until(lambda: f"{TORN}.yaml:1: " in ((gateway.rollout(TORN) or {})["file"]["error"] or ""))
        put(place, content, TORN)
        until(lambda: not (gateway.rollout(TORN) or {})["file"]["error"])
        after = gateway.rollout(TORN)
        assert after is not None
    assert (after["rollout_id"], after["phase"], after["step"]) == (
        before["rollout_id"],
        "baking",
        before["step"],
    )
    assert after["history"] == before["history"]


def garbled(content: bytes, chance: random.Random) -> bytes:
    """Tear a file, put garbage in, or take something out."""
    place = chance.randrange(len(content))
    kind = chance.randrange(4)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + chance.randbytes(8) + content[place:]
    if kind == 2:
        return content[:place] + content[place + chance.randrange(1, 20) :]
    return b""


def is_valid(content: bytes) -> bool:
    try:
        parse_rollout(content, "some.yaml")
    except ConfigError:
        return False
    return True


def test_a_moved_alias_changes_nothing_in_the_middle(gateway: RolloutGateway, place: Path) -> None:
    """What `@challenger` named when the rollout began is promoted, without another load."""
    aliases = place / "shelf" / OFFSET / "aliases"
    bakes = {"weight": "30%", "min_bake": "1s", "max_bake": "1h", "gates": ["safety"], "require": "no_harm"}
    content = scene.rollout(
        "@challenger",
        {"pause": {}},
        bakes,
        gates=GATES,
        name=ALIASED,
        model=ALIASED,
        targets={"stable": "@champion", "canary": "@challenger"},
    )
    with filed(place, ALIASED, content):
        until(lambda: gateway.is_in("paused_step", name=ALIASED))
        moved(aliases / "challenger", "3")
        loads = f'gateway_model_loads_total{{model="{ALIASED}"}}'
        gateway.operate("resume", ALIASED)
        until(lambda: gateway.shares(ALIASED).get("canary") == 0.3)
        before = gateway.metric(loads)
        while not gateway.is_in("rollback_window", "promoted", name=ALIASED):
            answers = asked(gateway, FEW[:50], infer(ALIASED))
            assert {a.version for a in answers.all} <= {1, 2}
        until(lambda: gateway.shares(ALIASED) == {"stable": 1.0})
        assert set(versions(asked(gateway, FEW, infer(ALIASED))).values()) == {2}
        until(lambda: gateway.is_in("promoted", name=ALIASED))
        assert set(versions(asked(gateway, FEW, infer(ALIASED))).values()) == {2}
        assert gateway.metric(loads) == before > 0


def moved(alias: Path, number: str) -> None:
    draft = alias.with_name(f".{alias.name}")
    draft.write_text(number)
    draft.replace(alias)


def test_the_second_gateway_on_the_same_state_is_refused(gateway: RolloutGateway, place: Path) -> None:
    """In words that say who has it."""
    assert gateway.alive
    (place / "second").mkdir()
    settings = scene.settings()
    settings["models"][0]["path"] = str(place / "repository" / OFFSET)
    settings["rollouts"] |= {"directory": "rollouts", "state_directory": str(place / "state")}
    refused = RolloutGateway(settings, place / "second")
    with pytest.raises(RuntimeError, match="is in use by the gateway with process id"), refused:
        pass
