"""Rollout files between two versions of a fleet: promoted by themselves, or withdrawn by themselves."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from tests.backends.triton.fake import Failure, FakeTriton, model
from tests.fleets.stage import Served, gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

USERS = 400
AT_ONCE = 8


class Users:
    """Ask one after the other, each by its name, and keep who answered.

    Attributes:
        answered: arm and version of each answer.
        wrong: answers that were not the request's own.
    """

    def __init__(self, served: Served) -> None:
        self._served = served
        self._number = 0
        self.answered: list[tuple[str, str]] = []
        self.wrong: list[str] = []

    async def ask(self) -> None:
        self._number += 1
        request = service_pb2.ModelInferRequest(model_name="m")
        request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
        sent = np.full(2, self._number, np.float32).tobytes()
        request.raw_input_contents.append(sent)
        metadata = (("x-user-id", f"user-{self._number % USERS}"),)
        try:
            answer = await self._served.stub.ModelInfer(request, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            self.wrong.append(f"{error.code().name}: {error.details()}")
            return
        if list(answer.raw_output_contents) != [sent]:
            self.wrong.append(f"version {answer.model_version} answered another")
        arm = answer.parameters["gateway_arm"].string_param
        self.answered.append((arm, answer.model_version))

    async def until(self, *phases: str) -> dict[str, Any]:
        """Ask until the rollout is in one of these phases; return its document."""
        while True:
            found = (await self._served.admin("/rollouts"))["rollouts"]
            if found and found[0]["phase"] in phases:
                rollout: dict[str, Any] = await self._served.admin("/rollouts/m")
                return rollout
            await asyncio.gather(*(self.ask() for _ in range(AT_ONCE)))


def rollout(*steps: dict[str, Any]) -> dict[str, Any]:
    """Return the file that brings version 2 by these steps."""
    return {
        "apiVersion": "gateway/v1",
        "kind": "Rollout",
        "name": "m",
        "model": "m",
        "targets": {"stable": 1, "canary": 2},
        "assign": {
            "key": [{"header": "x-user-id"}],
            "hash": {"salt": "fleet"},
            "on_canary_failure": "fallback_stable",
        },
        "steps": [*steps, {"promote": {"keep_stable_warm": "1m"}}],
        "gates": {
            "safety": [
                {"errors": {"min_requests": 50}},
                {"fallbacks": {"max_rate": "1%", "min_requests": 50}},
            ],
            "agreement": [{"disagree": {"max_rate": "10%", "min_pairs": 50}}],
        },
    }


WEIGHT = {"weight": "50%", "min_bake": "1s", "max_bake": "1m", "gates": ["safety"], "require": "no_harm"}
SHADOW = {"shadow": "canary", "sample": "100%", "min_bake": "1s", "max_bake": "1m", "gates": ["agreement"]}


def endpoint(behave: Callable[[Any], Any] | None = None) -> FakeTriton:
    """Return one that has both versions; `behave` is what version 2 does."""
    triton = FakeTriton({"m": model(1, 2)})

    def of_version(request: Any) -> Any:
        return behave(request) if behave is not None and request.model_version == "2" else None

    triton.models["m"].behave = of_version
    return triton


@asynccontextmanager
async def rolling(
    directory: Path, one: FakeTriton, two: FakeTriton, *steps: dict[str, Any]
) -> AsyncIterator[Users]:
    """Run a gateway with this rollout on a fleet of two endpoints."""
    (directory / "rollouts").mkdir()
    (directory / "rollouts" / "m.yaml").write_text(json.dumps(rollout(*steps)))
    fleet = {
        "name": "a",
        "endpoints": [str(one.address), str(two.address)],
        "probe": {"interval_s": 0.05},
    }
    config = {
        "triton": [fleet],
        "models": [{"name": "m", "triton": {}, "versions": {"specific": [1]}}],
        "rollouts": {
            "directory": str(directory / "rollouts"),
            "state_directory": str(directory / "state"),
            "poll_interval_s": 0.05,
            "settle_s": 0.01,
        },
    }
    async with gateway(config) as served:
        yield Users(served)


def fails(_request: Any) -> None:
    raise Failure(grpc.StatusCode.INTERNAL, "the new version fails")


def lies(request: Any) -> None:
    request.raw_input_contents[0] = bytes(len(request.raw_input_contents[0]))


async def test_a_good_version_is_promoted_by_itself(tmp_path: Path) -> None:
    """Copies first, then half of the users, then everybody; each answer is the request's own."""
    async with endpoint() as one, endpoint() as two, rolling(tmp_path, one, two, SHADOW, WEIGHT) as users:
        found = await users.until("rollback_window", "aborted")
        assert found["phase"] == "rollback_window", found["reason"]
        assert {("stable", "1"), ("canary", "2")} <= set(users.answered)
        before = len(users.answered)
        await users.ask()
        assert users.answered[before][1] == "2"
        assert users.wrong == []


async def test_a_version_that_fails_is_withdrawn_by_itself(tmp_path: Path) -> None:
    """No user sees an error: what fails there is answered by version 1, on endpoints that stay in use."""
    async with endpoint(fails) as one, endpoint(fails) as two, rolling(tmp_path, one, two, WEIGHT) as users:
        found = await users.until("rollback_window", "aborted")
        assert found["phase"] == "aborted"
        assert found["reason"].startswith(("safety.errors", "safety.fallbacks"))
        before = len(users.answered)
        await users.ask()
        assert users.answered[before][1] == "1"
        assert users.wrong == []
        assert {version for _, version in users.answered} == {"1"}


async def test_a_version_that_answers_otherwise_never_answers_anybody(tmp_path: Path) -> None:
    """Its copies disagree: it is withdrawn in the shadow step."""
    async with endpoint(lies) as one, endpoint(lies) as two, rolling(tmp_path, one, two, SHADOW) as users:
        found = await users.until("rollback_window", "aborted")
        assert found["phase"] == "aborted"
        assert found["reason"].startswith("agreement.disagree")
        assert users.wrong == []
        assert {version for _, version in users.answered} == {"1"}
        copied = [seen for triton in (one, two) for seen in triton.seen if seen.request.model_version == "2"]
        assert copied
