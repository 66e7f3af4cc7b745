"""What clients notice of an endpoint in trouble: three Triton servers, a fault at a time, steady load.

    python -m loadtests.triton_faults                            every fault, about five minutes
    python -m loadtests.triton_faults --only kill --save FILE    one of them, kept beside those in FILE
    python -m loadtests.triton_faults --show FILE --into docs    writes docs/triton-measurements.md

Every fault meets a gateway of its own, with the default settings of a fleet; only batching is left to Triton,
so that an attempt is a request. Load is open: requests come at random times of a fixed mean rate whatever
becomes of those before, each with a deadline, each for one version by name, and each answer is checked.
Exits with 1 if clients see more than 0.5 % errors from five seconds after a fault on, if there are more than
1.1 attempts for a request, or if an endpoint that is well again is not used.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loadtests import triton_scene as scene
from loadtests.triton_clients import GrpcLoad, failed, reasons
from loadtests.triton_page import put_table
from loadtests.triton_troubles import BRIEF, FAULTS, NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtests.triton_scene import Counts, Endpoint, FleetGateway

MOST_ERRORS: Final = 0.005
MOST_ATTEMPTS: Final = 1.1
SETTLED_S: Final = 5.0
"""Errors before this are shown, those after it are held against the limit."""
BACK_SHARE: Final = 0.1
"""An endpoint is back when so large a share of the attempts goes to it; a third is fair."""

_OPTIONS: Final = {"batching": "passthrough"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long, and how much.

    Attributes:
        rate: requests per second.
        deadline_s: of each request.
        before_s: load before the fault.
        fault_s: from the fault to its end.
        return_s: how long an endpoint that is well again may take to be used.
        after_s: load after that.
    """

    rate: float = 200.0
    deadline_s: float = 1.0
    before_s: float = 3.0
    fault_s: float = 10.0
    return_s: float = 30.0
    after_s: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a fault came to.

    Attributes:
        fault: its name.
        before_errors: errors that clients saw before it.
        early: requests sent in the first five seconds.
        early_errors: errors that clients saw of them.
        late: requests sent after that, to the end of the load.
        late_errors: errors that clients saw of them.
        wrong: answers that were not right, ever.
        unanswered: requests without an answer, ever.
        attempts: for each request, during the fault or from it to the end of the load, whichever is more.
        out_s: from the fault until its endpoint was out of use; None: it was not.
        fault_share: of the good attempts, its own, while it was in trouble and the first seconds were over.
        back_s: from the fault's end until the endpoint was used; None: it was not.
        slowest_s: of the right answers after the first five seconds, the 99th percentile.
        why: errors in words.
    """

    fault: str
    before_errors: int
    early: int
    early_errors: int
    late: int
    late_errors: int
    wrong: int
    unanswered: int
    attempts: float
    out_s: float | None
    fault_share: float
    back_s: float | None
    slowest_s: float
    why: Sequence[str] = ()

    @property
    def problems(self) -> list[str]:
        """Return what does not hold, in words."""
        held = {
            f"more than {MOST_ERRORS:.1%} errors": self.late_errors <= MOST_ERRORS * self.late,
            f"more than {MOST_ATTEMPTS} attempts": self.attempts <= MOST_ATTEMPTS,
            "errors before the fault": not self.before_errors,
            "not used again": self.back_s is not None,
            "wrong answers": not self.wrong,
            "unanswered requests": not self.unanswered,
        }
        return [problem for problem, holds in held.items() if not holds]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the gateway saw; as in `Row`."""

    attempts: float
    out_s: float | None
    fault_share: float
    back_s: float | None


class Trial:
    """One fault at one endpoint."""

    def __init__(self, process: FleetGateway, endpoint: Endpoint, plan: Plan) -> None:
        self._process = process
        self._endpoint = endpoint
        self._plan = plan
        self._load = GrpcLoad(process.grpc_port, rate=plan.rate, deadline_s=plan.deadline_s)

    async def run(self, fault: str) -> Row:
        """Return what clients and the gateway saw of it."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._load.run(stop))
            try:
                seen = await self._watched(fault, group)
            finally:
                stop.set()
        return self._row(fault, seen)

    async def _watched(self, fault: str, group: asyncio.TaskGroup) -> _Seen:
        loop, plan = asyncio.get_running_loop(), self._plan
        await asyncio.sleep(plan.before_s)
        before = await self._process.counts()
        sent_before = self._load.answers.sent
        self._began_s = loop.time()
        out = group.create_task(self._out())
        heal = await asyncio.to_thread(FAULTS[fault], self._endpoint)
        fault_s = 0.0 if fault in BRIEF else plan.fault_s
        settled = await self._counts_at(self._began_s + min(SETTLED_S, fault_s / 2))
        ending = await self._counts_at(self._began_s + fault_s)
        sent_meanwhile = self._load.answers.sent - sent_before
        await asyncio.to_thread(heal)
        out.cancel()
        (out_s,) = await asyncio.gather(out, return_exceptions=True)
        back_s = await self._back()
        await asyncio.sleep(plan.after_s)
        counted = (await self._process.counts()).since(before)
        sent = self._load.answers.sent - sent_before
        return _Seen(
            attempts=max(
                counted.attempts.total() / sent,
                ending.since(before).attempts.total() / sent_meanwhile if fault_s else 0.0,
            ),
            out_s=out_s if isinstance(out_s, float) else None,
            fault_share=self._share(ending.since(settled)),
            back_s=back_s,
        )

    def _row(self, fault: str, seen: _Seen) -> Row:
        """Return that and what clients saw."""
        answers, settled_s = self._load.answers, self._began_s + SETTLED_S
        early, late = answers.between(self._began_s, settled_s), answers.between(settled_s)
        right_s = sorted(answer.seconds for answer in late if not answer.error)
        return Row(
            fault=fault,
            before_errors=failed(answers.between(0.0, self._began_s)),
            early=len(early),
            early_errors=failed(early),
            late=len(late),
            late_errors=failed(late),
            wrong=sum(answer.wrong for answer in answers.got),
            unanswered=answers.sent - len(answers.got),
            slowest_s=right_s[int(len(right_s) * 0.99)] if right_s else 0.0,
            attempts=seen.attempts,
            out_s=seen.out_s,
            fault_share=seen.fault_share,
            back_s=seen.back_s,
            why=[f"early: {r}" for r in reasons(early)] + [f"late: {r}" for r in reasons(late)],
        )

    async def _out(self) -> float:
        loop = asyncio.get_running_loop()
        while await self._process.in_use(self._endpoint):  # noqa: ASYNC110 - what changes is in another process
            await asyncio.sleep(0.05)
        return loop.time() - self._began_s

    async def _counts_at(self, at_s: float) -> Counts:
        await asyncio.sleep(at_s - asyncio.get_running_loop().time())
        return await self._process.counts()

    async def _back(self) -> float | None:
        """Return after how many seconds from now the endpoint was used again."""
        loop = asyncio.get_running_loop()
        healed_s = loop.time()
        before = await self._process.counts()
        while loop.time() < healed_s + self._plan.return_s:
            await asyncio.sleep(0.5)
            now = await self._process.counts()
            share, before = self._share(now.since(before)), now
            if share >= BACK_SHARE and await self._process.in_use(self._endpoint):
                return loop.time() - healed_s
        return None

    def _share(self, counts: Counts) -> float:
        good = sum(n for (_, outcome), n in counts.attempts.items() if outcome == "ok")
        return counts.good(self._endpoint) / good if good else 0.0


def run(faults: Sequence[str], plan: Plan) -> list[Row]:
    """Return what each fault came to, on servers that all of them share."""
    rows = []
    with scene.endpoints(3) as fleet:
        for number, fault in enumerate(faults):
            with ExitStack() as stack:
                process = stack.enter_context(scene.gateway(fleet, options=_OPTIONS, more={}))
                rows.append(asyncio.run(Trial(process, fleet[number % 3], plan).run(fault)))
            print(line(rows[-1]), *rows[-1].why, sep="\n    ", file=sys.stderr, flush=True)
    return rows


HEADINGS: Final = (
    "fault", "requests", "errors in 5 s", "errors after", "attempts per request", "out of use after",
    "its share meanwhile", "used again after", "p99 after 5 s", "verdict",
)  # fmt: skip


def cells(row: Row) -> tuple[str, ...]:
    """Return a row of the table."""
    return (
        NAMES[row.fault],
        str(row.early + row.late),
        f"{row.early_errors} ({row.early_errors / max(1, row.early):.2%})",
        f"{row.late_errors} ({row.late_errors / max(1, row.late):.2%})",
        f"{row.attempts:.3f}",
        _seconds(row.out_s),
        f"{row.fault_share:.0%}",
        _seconds(row.back_s),
        f"{row.slowest_s * 1e3:.0f} ms",
        "; ".join(row.problems) or "holds",
    )


def line(row: Row) -> str:
    """Return a row in one line."""
    return ", ".join(f"{h}: {c}" for h, c in zip(HEADINGS, cells(row), strict=True))


def _seconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"


def load(file: Path) -> list[Row]:
    """Return the rows kept in a file, in the order of the faults."""
    kept = json.loads(file.read_text()) if file.exists() else {}
    return [Row(**kept[fault]) for fault in FAULTS if fault in kept]


def save(file: Path, rows: Sequence[Row]) -> None:
    """Keep rows in a file, in place of those of the same faults."""
    kept = {row.fault: asdict(row) for row in (*load(file), *rows)}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(kept, indent=1))


def main() -> int:
    """Run what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", action="append", choices=FAULTS, help="repeatable; without it every fault")
    parser.add_argument("--rate", type=float, default=Plan().rate, help="requests per second")
    parser.add_argument("--save", type=Path, help="a file that keeps the rows")
    parser.add_argument("--show", type=Path, help="runs nothing: takes the rows of this file")
    parser.add_argument("--into", type=Path, help="the folder of triton-measurements.md")
    options = parser.parse_args()
    plan = Plan(rate=options.rate)
    rows = load(options.show) if options.show else run(options.only or list(FAULTS), plan)
    if options.save:
        save(options.save, rows)
    if options.into:
        put_table(options.into, "faults", HEADINGS, [cells(row) for row in rows])
    print(*map(line, rows), sep="\n")
    return 1 if any(row.problems for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
