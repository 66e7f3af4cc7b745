"""Whether the drift tests keep their level and find shifts: the tables of docs/drift-statistics.md.

Each round draws a reference of its own, makes bins or a dictionary of it as a profile does, and compares a
window from the same distribution: `python -m loadtests.drift_levels --into docs`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.stats import beta, ks_2samp  # type: ignore[import-untyped]  # SciPy ships no types

from gateway.monitor.profile.build import quantile_edges
from gateway.statistics import distances, fourier, two_sample
from gateway.statistics.two_sample import Sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]

ROWS: Final = (50, 100, 200, 500, 1000, 5000)
REFERENCE: Final = 5000
SEED: Final = 977_310
LEVELS: Final = (0.05, 0.01, 0.001)
_CHUNK: Final = 250
_BINS: Final = 64
_ALPHA: Final = 0.01
_SHIFTS: Final = (0.1, 0.3, 0.5)
_CATEGORY_BINS: Final = 64
_DICTIONARY: Final = 256
_EVIDENTLY: Final = "Evidently"
_BEGIN: Final = "<!-- measured: written by python -m loadtests.drift_levels --into docs -->"
_END: Final = "<!-- end of measured -->"


def _zipf(draw: np.random.Generator, shape: tuple[int, int]) -> Floats:
    weights = 1 / np.arange(1, 301) ** 1.3
    codes = np.searchsorted(np.cumsum(weights / weights.sum()), draw.random(shape))
    return np.minimum(codes, 299).astype(float)


SHAPES: Final[dict[str, Draw]] = {
    "normal": lambda draw, shape: draw.normal(size=shape),
    "lognormal": lambda draw, shape: draw.lognormal(0, 1, shape),
    "whole numbers": lambda draw, shape: draw.poisson(3, shape).astype(float),
    "categories": _zipf,
    "even categories": lambda draw, shape: draw.integers(0, 100, shape).astype(float),
}

Found = dict[str, "Floats"]
"""P-values, `[rounds]`, by statistic; of Evidently 0 where its rule says drift, else 1."""


def numeric(reference: Floats, windows: Floats, alpha: float = _ALPHA) -> Found:
    """Compare windows `[rounds, rows]` of numbers with references `[rounds, rows]` as detection does."""
    rounds = len(reference)
    old, new = np.zeros((rounds, _BINS)), np.zeros((rounds, _BINS))
    gaps, spread = np.zeros((rounds, _BINS - 1)), reference.std(axis=1)
    evidently = np.ones(rounds)
    for i, (before, now) in enumerate(zip(np.sort(reference, axis=1), np.sort(windows, axis=1), strict=True)):
        edges = quantile_edges(before)
        for into, values in ((old, before), (new, now)):
            at = np.concatenate([[0], np.searchsorted(values, edges, side="right"), [len(values)]])
            into[i, : len(edges) + 1] = np.diff(at)
        low, high = np.quantile(before, [0.001, 0.999])
        gaps[i, : len(edges)] = distances.widths(edges, low, high) / spread[i]
        evidently[i] = _evidently_numeric(before, now, spread[i])
    sizes = Sizes(np.full(rounds, float(windows.shape[1])), np.full(rounds, float(reference.shape[1])))
    found = _histograms(old, new, sizes, alpha, two_sample.BINS)
    found["ks"] = two_sample.ks(old, new, sizes, alpha).p_value
    found["wasserstein"] = two_sample.wasserstein(gaps, old, new, sizes, alpha).p_value
    return found | {_EVIDENTLY: evidently}


def categories(reference: Floats, windows: Floats, alpha: float = _ALPHA) -> Found:
    """Likewise of categories, given as codes."""
    old, new = (np.zeros((len(reference), _DICTIONARY + 1)) for _ in range(2))
    evidently = np.ones(len(reference))
    for i, (before, now) in enumerate(zip(reference.astype(int), windows.astype(int), strict=True)):
        counted = np.bincount(before, minlength=300), np.bincount(now, minlength=300)
        order = np.argsort(-counted[0], kind="stable")
        known = order[: min(_DICTIONARY, int((counted[0] > 0).sum()))]
        for into, counts in zip((old, new), counted, strict=True):
            into[i, : len(known)] = counts[known]
            into[i, -1] = counts.sum() - counts[known].sum()
        distance = distances.jensen_shannon(*(counts.astype(float) for counts in counted))
        evidently[i] = float(distance < 0.1)
    sizes = Sizes(new.sum(axis=1), old.sum(axis=1))
    found = _histograms(*two_sample.mixed(old, new), sizes, alpha, _CATEGORY_BINS)
    found["novel"] = two_sample.rate(new[:, -1], two_sample.unseen(old), sizes, alpha).p_value
    return found | {_EVIDENTLY: evidently}


def _histograms(old: Floats, new: Floats, sizes: Sizes, alpha: float, bins: int) -> Found:
    tests = {
        "psi": two_sample.psi,
        "js": two_sample.jensen_shannon,
        "chi2": two_sample.chi_square,
    }
    return {name: test(old, new, sizes, alpha, bins).p_value for name, test in tests.items()}


def _evidently_numeric(before: Floats, now: Floats, spread: float) -> float:
    """Return 0 for drift: more than 5 values, Wasserstein over deviation, else Jensen-Shannon; both 0.1."""
    if len(np.unique(np.concatenate([before[::50], now[:50]]))) <= 5:
        values = np.unique(np.concatenate([before, now]))
        counts = [np.array([(part == v).sum() for v in values], float) for part in (before, now)]
        return float(distances.jensen_shannon(counts[0], counts[1]) < 0.1)
    every = np.sort(np.concatenate([before, now]), kind="stable")
    shares = [np.searchsorted(part, every[:-1], side="right") / len(part) for part in (before, now)]
    return float((np.abs(shares[0] - shares[1]) * np.diff(every)).sum() / spread < 0.1)


def rates(draw: np.random.Generator, rows: int, rounds: int) -> Found:
    """Compare shares of missing values (1 %) and of values in the outermost 0.2 % without a change."""
    sizes = Sizes(np.full(rounds, float(rows)), np.full(rounds, float(REFERENCE)))
    before = draw.binomial(REFERENCE, 0.01, rounds).astype(float)
    missing = two_sample.rate(draw.binomial(rows, 0.01, rounds).astype(float), before, sizes, _ALPHA)
    tails = np.full(rounds, np.ceil(0.002 * REFERENCE) + 2)
    # The share of the population beyond a sample's own quantiles is beta distributed.
    beyond = draw.beta(tails, REFERENCE - tails + 1, rounds)
    outer = two_sample.rate(draw.binomial(rows, beyond).astype(float), tails, sizes, _ALPHA)
    return {"missing": missing.p_value, "range": outer.p_value}


def embeddings(draw: np.random.Generator, rounds: int, reference_rows: int = 1000) -> dict[int, Floats]:
    """Return p-values of MMD by rows: embeddings of 16 numbers that depend on each other, 128 features."""
    found: dict[int, list[float]] = {rows: [] for rows in ROWS if rows <= 1000}
    mixing = fourier.normals(16 * 16, 5).reshape(16, 16) / 4
    for _ in range(rounds):
        reference = draw.normal(size=(reference_rows, 16)) @ mixing
        w = fourier.directions(16, 128, fourier.bandwidth(reference[:200]), 7)
        z = fourier.features(reference, w)
        traces, total = fourier.spectrum(z), z.sum(axis=0)
        window = fourier.features(draw.normal(size=(1000, 16)) @ mixing, w)
        for rows, into in found.items():
            value = fourier.mmd2(window[:rows].sum(axis=0), (rows, rows), total, reference_rows)
            into.append(fourier.mmd2_p_value(value, rows, reference_rows, traces))
    return {rows: np.array(values) for rows, values in found.items()}


def without_drift(shape: str, rows: int, rounds: int, seed: int = SEED) -> Found:
    """Return p-values where nothing has changed."""
    draw = np.random.default_rng([seed, rows, list(SHAPES).index(shape)])
    compare = categories if "categories" in shape else numeric
    parts = []
    for start in range(0, rounds, _CHUNK):
        count = min(_CHUNK, rounds - start)
        parts.append(compare(SHAPES[shape](draw, (count, REFERENCE)), SHAPES[shape](draw, (count, rows))))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def power(shift: float, rows: int, rounds: int, seed: int = SEED) -> dict[str, float]:
    """Return the share of windows shifted by so many deviations that is found at level 0.01."""
    draw = np.random.default_rng([seed, rows, int(shift * 10)])
    reference, windows = draw.normal(size=(rounds, REFERENCE)), draw.normal(shift, size=(rounds, rows))
    found = {name: float((p < _ALPHA).mean()) for name, p in numeric(reference, windows).items()}
    raw = [ks_2samp(a, b, method="asymp").pvalue < _ALPHA for a, b in zip(reference, windows, strict=True)]
    return found | {"KS on raw data": float(np.mean(raw))}


def least(count: int, of: int) -> float:
    """Return the lower end of a share's one-sided 99.9 % interval (Clopper and Pearson)."""
    return float(beta.ppf(0.001, count, of - count + 1)) if count else 0.0


def tables(rounds: int) -> tuple[str, list[str]]:
    """Return the tables in Markdown, and each cell whose level is surely not kept."""
    broken: list[str] = []
    parts = []
    draw = np.random.default_rng([SEED, 1])
    groups = {shape: {rows: without_drift(shape, rows, rounds) for rows in ROWS} for shape in SHAPES}
    groups["rates of bad values"] = {rows: rates(draw, rows, 10 * rounds) for rows in ROWS}
    groups["embeddings"] = {rows: {"mmd": p} for rows, p in embeddings(draw, rounds // 2).items()}
    for shape, by_rows in groups.items():
        names = list(next(iter(by_rows.values())))
        lines = [f"| {shape}, rows | {' | '.join(names)} |", f"|---:|{'---:|' * len(names)}"]
        for rows, found in by_rows.items():
            lines.append(
                f"| {rows:,} | {' | '.join(_cell(shape, rows, n, found[n], broken) for n in names)} |"
            )
        parts.append("\n".join(lines))
    parts.append(_powers(min(rounds, 250)))
    parts.append(
        f"Seed {SEED}; {rounds:,} rounds per cell, {10 * rounds:,} of rates, {rounds // 2:,} of embeddings."
    )
    return "\n\n".join(parts), broken


def _cell(shape: str, rows: int, name: str, p: Floats, broken: list[str]) -> str:
    if name == _EVIDENTLY:
        return f"{100 * (p < 0.5).mean():.1f}"
    shown = []
    for level in LEVELS:
        count = int((p < level).sum())
        mark = "\\*" if least(count, len(p)) > level else ""
        if mark:
            broken.append(f"{shape}, {rows} rows, {name} at {level}: {count} of {len(p)}")
        shown.append(f"{100 * count / len(p):.2g}{mark}")
    return " / ".join(shown)


def _powers(rounds: int) -> str:
    lines: list[str] = []
    for shift in _SHIFTS:
        for rows in ROWS:
            found = power(shift, rows, rounds)
            if not lines:
                lines = [
                    f"| shift, deviations | rows | {' | '.join(found)} |",
                    f"|---:|---:|{'---:|' * len(found)}",
                ]
            lines.append(f"| {shift} | {rows:,} | {' | '.join(f'{100 * s:.0f}' for s in found.values())} |")
    return "\n".join(lines)


def write(docs: Path, text: str) -> None:
    """Put the tables between their marks in the page."""
    page = docs / "drift-statistics.md"
    before, rest = page.read_text().split(_BEGIN)
    page.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{rest.split(_END)[1]}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return 1 if a level is surely not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, help="folder of the documentation")
    parser.add_argument("--rounds", type=int, default=1000, help="windows per cell")
    given = parser.parse_args(arguments)
    text, broken = tables(given.rounds)
    if given.into is None:
        print(text)
    else:
        write(given.into, text)
    for line in broken:
        print(f"not kept: {line}")
    return int(bool(broken))


if __name__ == "__main__":
    raise SystemExit(main())
