"""Ends a gateway in the middle of rollouts, over and over; measures how soon a bad version is withdrawn."""

from __future__ import annotations

import asyncio
import math
import random
import shutil
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.state.chain import FaultKind
from gateway.state.store import JournalStore
from gateway.state.verification import read_records, verify
from loadtests import soak_rollouts_scene as scene
from loadtests.soak_models import OFFSET, publish
from loadtests.soak_rollouts_scene import Answers, RolloutGateway, keep_asking, put, until
from loadtests.soak_table import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDS: Final = 50
LONGEST_S: Final = 0.6
"""A gateway is ended so long after it is ready, at most; a rollout takes about three times that."""
RATE: Final = 200.0
CANARIES: Final = (2, 3)
GATES: Final = {"safety": [{"srm": {}}, {"errors": {"min_requests": 5}}, {"fallbacks": {"min_requests": 5}}]}
"""Without `crashes`: a canary that was killed with its gateway goes on."""
HARM_RATE: Final = 200.0
HARM_LIMIT_S: Final = 2.0
_UNDER_WAY: Final = 10
"""Answers whose requests may have been routed before the withdrawal was seen: more than connections."""
RESTING: Final = ("promoted", "rollback_window")
WITHDRAWN: Final = ("aborting", "aborted", "rolling_back", "rolled_back")


@dataclass(slots=True)
class Report:
    """What was seen over many lives of a gateway.

    Attributes:
        ends: how often it was ended.
        phases: the phases on record at its ends.
        rollouts: begun.
        answers: what users got.
        problems: what must not be, in words.
    """

    ends: int = 0
    phases: set[str] = field(default_factory=set)
    rollouts: int = 0
    answers: Answers = field(default_factory=Answers)
    problems: list[str] = field(default_factory=list)


def end_over_and_over(ends: int, *, seed: int, politely: bool) -> Report:
    """Run rollouts of good versions one after the other while the gateway is ended at random moments.

    Args:
        ends: how often.
        seed: of the moments.
        politely: by SIGTERM; else by SIGKILL, every fourth time while it starts.
    """
    chance = random.Random(seed)
    report = Report()
    with _directory(*CANARIES) as directory:
        known: dict[str, Any] = {}
        while report.ends < ends:
            gateway = RolloutGateway(scene.settings(), directory)
            if not politely and report.ends % 4 == 3:
                _killed_at_its_start(gateway, 0.3 + chance.random())
            else:
                with gateway, _users(gateway, report.answers):
                    _lives(gateway, directory, report, known, chance.random() * LONGEST_S)
                    _end(gateway, report, politely=politely)
            report.ends += 1
            known = _on_record(directory, known, report)
        with RolloutGateway(scene.settings(), directory) as gateway, _users(gateway, report.answers):
            try:
                until(lambda: gateway.is_in(*RESTING, *WITHDRAWN), "the end of the last rollout")
            except RuntimeError as error:
                report.problems.append(str(error))
            _withdrawn(gateway.rollout() or {}, report)
            _sound(directory, report, is_running=True)
    report.problems += report.answers.problems
    report.problems += [
        f"stable stood in for version {answer.version}" for answer in report.answers.all if answer.fallback
    ]
    return report


def _lives(
    gateway: RolloutGateway, directory: Path, report: Report, known: dict[str, Any], seconds: float
) -> None:
    """Look on while users ask a gateway that goes on from what is known."""
    _goes_on(gateway, known, report)
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        _look(gateway, directory, report)


def _end(gateway: RolloutGateway, report: Report, *, politely: bool) -> None:
    if politely:
        gateway.terminate()
        if (code := gateway.wait()) != 0:
            report.problems.append(f"SIGTERM ended it with exit code {code}: {gateway.log[-2000:]}")
    else:
        gateway.kill()
        gateway.wait()
    if "Traceback" in gateway.log:
        report.problems.append(gateway.log[gateway.log.index("Traceback") :][:2000])


@contextmanager
def _users(gateway: RolloutGateway, answers: Answers, rate: float = RATE) -> Iterator[None]:
    """Have users ask meanwhile, over two connections, from a thread of their own."""
    stop = threading.Event()

    async def ask() -> None:
        port = gateway.http_port
        async with asyncio.TaskGroup() as group:
            for seed in range(2):
                group.create_task(keep_asking(port, answers, stop, rate / 2, seed))

    thread = threading.Thread(target=lambda: asyncio.run(ask()))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _look(gateway: RolloutGateway, directory: Path, report: Report) -> None:
    """Check that only what is READY has a share; begin the next rollout when one is over."""
    share = gateway.shares().get("canary", 0.0)
    found = gateway.rollout()
    number = ((found or {}).get("targets", {}).get("canary") or {}).get("version")
    if share and number and not gateway.is_ready(number):
        again = gateway.shares().get("canary", 0.0)
        if again:
            report.problems.append(f"version {number} has {again:g} of the users and is not READY")
    if found is None or found["phase"] in RESTING + WITHDRAWN:
        _withdrawn(found or {}, report)
        report.rollouts += 1
        put(directory, next_rollout(report.rollouts))
        until(lambda: (gateway.rollout() or {}).get("phase") not in (None, *RESTING), "the next rollout")


def _withdrawn(found: dict[str, Any], report: Report) -> None:
    """Take note of a good version's withdrawal."""
    if found.get("phase") in WITHDRAWN:
        report.problems.append(f"withdrawn: {found['reason']}")


def next_rollout(number: int) -> dict[str, Any]:
    """Return the file of the rollout of that number, of the version that the one before did not try."""
    short = {"min_bake": "100ms", "max_bake": "1h", "require": "no_harm", "gates": ["safety"]}
    shadow = {
        "shadow": "canary",
        "sample": "50%",
        **short,
        "gates": ["agreement"],
        "compare": {"y": {"absolute": 5}},
    }
    return scene.rollout(
        CANARIES[number % 2],
        shadow,
        {"weight": "40%", **short},
        {"pause": "100ms"},
        {"weight": "70%", **short},
        gates=GATES | {"agreement": [{"disagree": {"max_rate": "50%", "min_pairs": 5}}]},
        assign={
            "key": [{"header": "x-user-id"}],
            "hash": {"salt": f"soak-{number}"},
            "on_canary_failure": "fallback_stable",
        },
    )


def _goes_on(gateway: RolloutGateway, known: dict[str, Any], report: Report) -> None:
    """Check that what is shown goes on from what was on record."""
    if not known:
        return
    until(lambda: gateway.rollout() is not None, "the rollout on record")
    shown = gateway.rollout()
    assert shown is not None
    if shown["epoch"] < known["epoch"]:
        report.problems.append(f"epoch {shown['epoch']} after {known['epoch']}")
    same = shown["rollout_id"] == known["rollout_id"] or known["phase"] in {"idle", "resolving", *RESTING}
    if not same:
        report.problems.append(f"rollout {shown['rollout_id']} after {known['rollout_id']}")
    elif shown["rollout_id"] == known["rollout_id"] and shown["step"]["index"] < known["step"]:
        report.problems.append(f"step {shown['step']['index']} after {known['step']}")


def _on_record(directory: Path, before: dict[str, Any], report: Report) -> dict[str, Any]:
    """Return what a gateway that has ended left of its rollout; it never falls behind what it left before."""
    copy = Path(tempfile.mkdtemp())
    try:
        shutil.copytree(directory / "state" / "documents", copy / "documents")
        found = asyncio.run(_state(copy / "documents"))
    finally:
        shutil.rmtree(copy)
    _sound(directory, report, is_running=False)
    if not found:
        if before:
            report.problems.append("nothing is on record any more")
        return {}
    report.phases.add(str(found["phase"]))
    if before and found["epoch"] < before["epoch"]:
        report.problems.append(f"epoch {found['epoch']} on record after {before['epoch']}")
    return found


async def _state(documents: Path) -> dict[str, Any]:
    async with JournalStore(documents) as store:
        document = await store.read(f"rollouts/{OFFSET}")
    return dict(document.value["state"]) if document is not None else {}


def _sound(directory: Path, report: Report, *, is_running: bool) -> None:
    """Check the audit chain; a kill may leave its last line incomplete until the next start."""
    chain = directory / "state" / "audit"
    fault = verify(chain).fault
    if fault is not None and (is_running or fault.kind is not FaultKind.TORN):
        report.problems.append(str(fault))
    epochs = [int(record.entry.detail.get("epoch", 0)) for record in read_records(chain)]
    if epochs != sorted(epochs):
        report.problems.append(f"epochs in the audit chain: {epochs}")


def _killed_at_its_start(gateway: RolloutGateway, after_s: float) -> None:
    """Kill a gateway that is starting, or has just started."""
    timer = threading.Timer(after_s, gateway.kill)
    timer.start()
    try:
        with gateway:
            timer.join()
            gateway.wait()
    except RuntimeError:
        timer.join()  # it never came to be ready


@contextmanager
def _directory(*slow: int) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp())
    try:
        scene.repository(directory, *slow)
        yield directory
    finally:
        shutil.rmtree(directory)


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """How a bad version went.

    Attributes:
        found_s: from the first answer that the canary was asked for to the verdict.
        last_s: from the verdict, as it is on record, to the canary's last answer; negative if it was sooner.
        late: answers that the canary was asked for when administration had shown that it was withdrawn.
        answers: what users got.
        reason: as it is on record.
    """

    found_s: float
    last_s: float
    late: int
    answers: Answers
    reason: str


def withdraw_the_bad(share: float = 0.2, rate: float = HARM_RATE) -> Withdrawal:
    """Give half of the users a version that fails for a share of the requests, until it is withdrawn."""
    step = {"weight": "50%", "min_bake": "1m", "max_bake": "1h", "gates": ["safety"]}
    assign = {"key": [{"header": "x-user-id"}], "on_canary_failure": "fallback_stable"}
    with _directory() as directory:
        publish(directory / "repository", OFFSET, 2, scene.failing(2, share))
        with RolloutGateway(scene.settings(), directory) as gateway:
            answers = Answers()
            with _users(gateway, answers, rate):
                put(directory, scene.rollout(2, step, gates=GATES, assign=assign))
                until(lambda: gateway.is_in("aborted"), "the withdrawal")
                seen = len(answers.all) + _UNDER_WAY
                until(lambda: len(answers.all) > seen + rate, "answers after the withdrawal")
        records = [r.entry for r in read_records(directory / "state" / "audit")]
        verdict = next(entry for entry in records if entry.what in {"aborting", "abort"})
    at = float(verdict.detail["at"])
    canary = [n for n, answer in enumerate(answers.all) if answer.arm == "canary" or answer.fallback]
    first_s, last_s = (answers.all[n].at for n in (canary[0], canary[-1]))
    late = sum(n >= seen for n in canary)
    return Withdrawal(at - first_s, last_s - at, late, answers, str(verdict.detail["reason"]))


def kills(fraction: float) -> Iterator[Row]:
    """End the gateway in the middle of rollouts by SIGKILL and by SIGTERM."""
    for name, politely in (("rollouts, SIGKILL", False), ("rollouts, SIGTERM", True)):
        report = end_over_and_over(math.ceil(ENDS * fraction), seed=17, politely=politely)
        bad = len(report.problems)
        said = (
            f"{report.rollouts} rollouts, {len(report.answers.all)} answers, in {len(report.phases)} phases"
        )
        yield Row(name, f"{report.ends} ends", said, f"{bad} wrong", "0", ok=not bad, why=report.problems[:5])


def harm(fraction: float) -> Iterator[Row]:
    """Measure the time from the verdict about a bad version to its last answer."""
    count = math.ceil(10 * fraction)
    found = [withdraw_the_bad() for _ in range(count)]
    worst_s = max(one.last_s for one in found)
    problems = [problem for one in found for problem in one.answers.problems]
    ok = worst_s <= HARM_LIMIT_S and not problems
    said = f"verdict after {sorted(one.found_s for one in found)[count // 2]:.1f} s (median)"
    limit = f"{HARM_LIMIT_S:g} s"
    yield Row(
        "rollouts, withdrawal",
        f"{count} bad versions",
        said,
        f"{worst_s:.3f} s",
        limit,
        ok=ok,
        why=problems[:5],
    )
