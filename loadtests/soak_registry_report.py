"""What moving an alias under load came to: failures, latency during swaps, memory, lag, steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from loadtests.metrics_page import quantile
from loadtests.soak_table import Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from loadtests.soak_registry_load import Sent

P99_RATIO: Final = 2.0
RSS_SHARE: Final = 0.05
LAG_P999_S: Final = 0.005
_MIB: Final = 1 << 20
_STEPS: Final = ("FETCHING", "VERIFYING", "LOADING", "CHECKING", "WARMING")


@dataclass(frozen=True, slots=True)
class Swap:
    """One move of the alias; times are wall-clock seconds since the epoch.

    Attributes:
        version: what it was moved to.
        cold: the gateway had never had this version.
        moved_s: when the alias was written.
        began_s: when the gateway had seen that and began.
        ready_s: when the version was READY.
        gone_s: when the version before was unloaded, its requests answered.
        steps: state -> seconds on the way to READY.
        problem: why it came to nothing; the times are then 0.
    """

    version: int
    cold: bool
    moved_s: float
    began_s: float = 0.0
    ready_s: float = 0.0
    gone_s: float = 0.0
    steps: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""

    def read(self, old: int, versions: Sequence[Mapping[str, Any]]) -> Self:
        """Return it with what the administration page of the model says once it must be over."""
        rows = {row["version"]: row for row in versions}
        new, before = rows.get(self.version), rows.get(old)
        if new is None or before is None or (new["state"], before["state"]) != ("READY", "UNLOADED"):
            shown = {number: (row["state"], row["reason"]) for number, row in rows.items()}
            return type(self)(
                self.version, self.cold, self.moved_s, problem=f"{old} to {self.version} not over: {shown}"
            )
        return type(self)(
            self.version,
            self.cold,
            self.moved_s,
            began_s=new["steps"][0]["began"],
            ready_s=new["since"],
            gone_s=before["since"],
            steps={step["state"]: step["seconds"] for step in new["steps"]},
        )


@dataclass(slots=True)
class RegistryReport:
    """What became of a run.

    Attributes:
        sent: every request.
        swaps: every move and what the gateway made of it.
        rss_before: resident memory under load before the first move.
        rss_after: the same after the last.
        lag: bound in seconds -> measurements of the event loop's lag at or below it, while it ran.
        steps: step of a load -> seconds that it took on average, by the gateway's metrics.
        others: share of the machine's processors that programs had which are no part of this.
    """

    sent: list[Sent] = field(default_factory=list)
    swaps: list[Swap] = field(default_factory=list)
    rss_before: int = 0
    rss_after: int = 0
    lag: Mapping[float, float] = field(default_factory=dict)
    steps: Mapping[str, float] = field(default_factory=dict)
    others: float = 0.0

    def problems(self) -> list[str]:
        """Return what went wrong, in words."""
        return [s.problem for s in self.sent if s.problem] + [s.problem for s in self.swaps if s.problem]

    def latencies(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the seconds of requests under way during a swap, and of the others.

        A swap is from when the gateway begins to bring the new version, until the old one is unloaded.
        """
        at_s = np.array([s.at_s for s in self.sent])
        took_s = np.array([s.took_s for s in self.sent])
        during = np.zeros(len(at_s), np.bool_)
        for swap in self.swaps:
            during |= (at_s <= swap.gone_s) & (at_s + took_s >= swap.began_s)
        return took_s[during], took_s[~during]

    def first_answer_s(self, swap: Swap) -> float | None:
        """Return when a client had the first answer by a swap's new version; None: never."""
        name = str(swap.version)
        ends = [s.at_s + s.took_s for s in self.sent if s.version == name and s.at_s >= swap.began_s]
        return min(ends, default=None)


def rows(report: RegistryReport) -> Iterator[Row]:
    """Return the rows of a run."""
    count = f"{len(report.sent)} requests"
    problems = report.problems()
    said = f"{len(report.swaps)} moves, {sum(s.cold for s in report.swaps)} to a version never seen"
    yield Row(
        "registry, answers",
        count,
        said,
        f"{len(problems)} failed",
        "0",
        ok=not problems,
        why=problems[:10],
    )
    yield _latency(report)
    change = report.rss_after / report.rss_before - 1
    said = f"{report.rss_before / _MIB:.0f} -> {report.rss_after / _MIB:.0f} MiB"
    ok = abs(change) <= RSS_SHARE
    yield Row("registry, resident memory", count, said, f"{change * 100:+.1f} %", "5 %", ok=ok)
    lag_s = quantile(report.lag, 0.999)
    said = f"p99 <= {_ms(quantile(report.lag, 0.99))}, max <= {_ms(quantile(report.lag, 1.0))}"
    samples = f"{max(report.lag.values()):.0f} samples"
    ok = lag_s <= LAG_P999_S
    yield Row("registry, loop lag p99.9", samples, said, f"<= {_ms(lag_s)}", f"<= {_ms(LAG_P999_S)}", ok=ok)
    over = [swap for swap in report.swaps if not swap.problem]
    yield _breakdown(report, "version in the cache", [swap for swap in over if not swap.cold])
    yield _breakdown(report, "version never seen", [swap for swap in over if swap.cold])
    means = ", ".join(f"{step} {_ms(mean)}" for step, mean in report.steps.items())
    yield Row("registry, mean steps", f"{len(over)} swaps", means, "by /metrics", "none", ok=True)


def _latency(report: RegistryReport) -> Row:
    during, between = report.latencies()
    if not len(during) or not len(between):
        return Row("registry, p99 during swaps", "0 requests", "no swap was over", "none", "2 x", ok=False)
    (p50, p99, worst), (p50_other, p99_other, worst_other) = (
        np.quantile(took_s, (0.5, 0.99, 1.0)) for took_s in (during, between)
    )
    late = float(np.quantile([s.late_s for s in report.sent], 0.99))
    said = (
        f"p50/p99/max during {_ms(p50)}/{_ms(p99)}/{_ms(worst)}, "
        f"between {_ms(p50_other)}/{_ms(p99_other)}/{_ms(worst_other)}, sent late p99 {_ms(late)}, "
        f"other programs {report.others * 100:.0f} % of the machine"
    )
    ok = bool(p99 <= P99_RATIO * p99_other)
    figure = f"{p99 / p99_other:.2f} x"
    return Row("registry, p99 during swaps", f"{len(during)} requests", said, figure, "2 x", ok=ok)


def _breakdown(report: RegistryReport, kind: str, swaps: Sequence[Swap]) -> Row:
    """Return the mean seconds from a move of the alias to the first answer by its version, in parts."""
    check = f"registry, alias to answer, {kind}"
    parts: dict[str, list[float]] = {}
    whole: list[float] = []
    for swap in swaps:
        answered_s = report.first_answer_s(swap)
        if answered_s is None:
            continue  # the next move came before a request
        whole.append(answered_s - swap.moved_s)
        parts.setdefault("poll", []).append(swap.began_s - swap.moved_s)
        for state in _STEPS:
            parts.setdefault(state.lower(), []).append(swap.steps.get(state, 0.0))
        parts.setdefault("to answer", []).append(answered_s - swap.ready_s)
    if not whole:
        return Row(check, "0 swaps", "none", "none", "none", ok=True)
    said = ", ".join(f"{part} {_ms(float(np.mean(found)))}" for part, found in parts.items())
    figure = f"{np.mean(whole):.2f} s, at most {max(whole):.2f} s"
    return Row(check, f"{len(whole)} swaps", said, figure, "none", ok=True)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"
