"""Shadows of a real gateway that are absent, slow, crash or answer garbage change no answer by a byte."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from loadtests.noninterference_models import (
    ABSENT,
    CRASHING,
    MISSHAPEN,
    NANS,
    OTHER,
    SAME,
    SLOW,
    STABLE,
    repository_of,
)
from loadtests.noninterference_server import MODEL, ShadowedProcess
from loadtests.soak_grpc import channel, unary
from loadtests.soak_http import HttpConnection, request
from loadtests.soak_load import grpc_infer, http_infer
from loadtests.soak_models import withdraw
from loadtests.soak_server import settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REQUESTS = 60
ROWS = [(float(i), 0.5, -1.0, 2.0**-i) for i in range(REQUESTS)]
BAD = request("POST", f"/v2/models/{MODEL}/infer", b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}')
"""A request that is refused."""


@contextmanager
def shadowed(directory: Path, *versions: int, mode: str = "none") -> Iterator[ShadowedProcess]:
    """Run a gateway with these versions, each of which runs every request alone."""
    config = settings(repository_of(directory, STABLE, *versions), mode)
    config["models"] = [
        {
            "name": MODEL,
            "versions": {"all": True},
            "batching": {"enabled": False},
            "warm_up": {"enabled": False},
        }
    ]
    if mode == "poll":
        config["repository"] |= {"poll_interval_s": 0.05, "settle_s": 0.05}
    with ShadowedProcess(config, directory) as process:
        process.follow()
        yield process


async def answers(process: ShadowedProcess) -> list[tuple[object, bytes]]:
    """Ask over HTTP and gRPC, one request after the other and many at once; return statuses and bodies."""
    async with channel(process.grpc_port) as over, HttpConnection(process.http_port) as connection:
        infer = unary(over)
        got: list[tuple[object, bytes]] = []
        for row in ROWS:
            answer = await connection.exchange(http_infer(row))
            got += [(answer.status, answer.body), ("OK", await infer(grpc_infer(row)))]
        refused = await connection.exchange(BAD)
        got.append((refused.status, refused.body))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await infer(b"\xff")
        got.append((caught.value.code(), (caught.value.details() or "").encode()))
        together = await asyncio.gather(*[infer(grpc_infer(row)) for row in ROWS])
        return [*got, *[("OK", body) for body in together]]


def exact(counts: dict[str, Any]) -> bool:
    """Whether every copy is accounted for."""
    ended = counts["compared"] + counts["failed"] + sum(counts["dropped"].values())
    return bool(counts["mirrored"] == ended + counts["under_way"])


def settled(process: ShadowedProcess, version: int) -> dict[str, Any]:
    """Return the counts when no copy is under way any more; they are exact all the while."""
    while True:
        counts = process.counts(version)
        assert exact(counts)
        if not counts["under_way"]:
            return counts


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShadowedProcess]:
    """One with every version there is."""
    directory = tmp_path_factory.mktemp("shadowed")
    with shadowed(directory, SAME, OTHER, SLOW, CRASHING, NANS, MISSHAPEN) as process:
        yield process


@pytest.fixture(scope="module")
def unshadowed(gateway: ShadowedProcess) -> list[tuple[object, bytes]]:
    """The answers without a shadow."""
    gateway.follow()
    return asyncio.run(answers(gateway))


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (SAME, {"disagreed": 0, "failed": 0}),
        (OTHER, {"failed": 0}),
        (SLOW, {"disagreed": 0, "failed": 0}),
        (CRASHING, {"compared": 0}),
        (NANS, {"failed": 0}),
        (MISSHAPEN, {"failed": 0}),
        (ABSENT, {"compared": 0, "failed": 0}),
    ],
)
def test_answers_are_the_same_whatever_the_shadow_does(
    version: int, expected: dict[str, int], gateway: ShadowedProcess, unshadowed: list[tuple[object, bytes]]
) -> None:
    """Status and bytes of every answer are those without a shadow, and every copy is accounted for."""
    gateway.follow({"version": version, "max_inflight": 4})
    ended = {ABSENT: "mirrored", CRASHING: "failed"}.get(version, "compared")
    counts: dict[str, Any] = {ended: 0}
    rounds = 0
    # Copies wait for a device that nobody else wants, and are dropped when that takes too long.
    while not counts[ended]:
        assert asyncio.run(answers(gateway)) == unshadowed
        rounds += 1
        counts = settled(gateway, version)
    # Refused requests were never dispatched.
    assert counts["mirrored"] == 3 * REQUESTS * rounds
    assert {key: counts[key] for key in expected} == expected
    if version in {OTHER, NANS, MISSHAPEN}:
        assert counts["disagreed"] == counts["compared"]
    if version == ABSENT:
        assert set(counts["dropped"]) <= {"not_ready", "inflight"}
    gateway.follow()


async def test_a_shadow_may_go_at_any_moment(tmp_path: Path) -> None:
    """Its version is unloaded amid requests: they are answered as before, and its copies are dropped."""
    with shadowed(tmp_path, SAME, mode="poll") as process:
        process.follow()
        before = await answers(process)
        process.follow({"version": SAME, "max_inflight": 64})
        assert await answers(process) == before
        assert process.counts(SAME)["compared"] > 0
        withdraw(tmp_path / "repository", MODEL, SAME)
        while not process.counts(SAME)["dropped"].get("not_ready"):
            assert await answers(process) == before
        assert exact(process.counts(SAME))


async def test_the_end_accounts_for_every_copy(tmp_path: Path) -> None:
    """SIGTERM while a slow shadow has copies under way: none is lost, and the process ends well."""
    with shadowed(tmp_path, SLOW) as process:
        process.follow({"version": SLOW, "max_inflight": 64})
        await answers(process)
        assert process.counts(SLOW)["under_way"] > 0
        last = process.end()[f"v{SLOW}"]
        assert exact(last)
        assert (last["mirrored"], last["under_way"]) == (3 * REQUESTS, 0)
        assert last["dropped"]["shutdown"] > 0
        assert "Traceback" not in process.log
