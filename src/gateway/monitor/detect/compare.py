"""One stream's window against its reference: every test of every signal, for all signals at once."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.monitor.detect.table import CODES, DEGRADED, OK, TOO_FEW, ScoreTable
from gateway.monitor.panes.layout import ABOVE, BELOW, INFINITE, MISSING, TYPE
from gateway.statistics import distances, fourier, nulls, two_sample
from gateway.statistics.two_sample import Sizes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from gateway.config.monitor_detect import DetectSettings
    from gateway.monitor.detect.levels import Level
    from gateway.monitor.detect.prepared import Prepared
    from gateway.monitor.panes.pane import Pane
    from gateway.monitor.profile.reference import BlockThreshold, EmbeddingReference, Profile
    from gateway.monitor.values import StreamKey

    Floats = npt.NDArray[np.float64]

CATEGORY_BINS: Final = 64
"""Categories are compared one by one up to so many; rarer ones together."""


@dataclass(frozen=True, slots=True)
class Tests:
    """One statistic of some signals; arrays have one element per signal.

    Attributes:
        statistic: its name.
        names: of the signals.
        value: effect, as the floor has it.
        p_value: of no change; NaN: not to be tested.
        critical: effect that chance alone exceeds with the level's probability.
        rows: effective ones of the window.
        reference_rows: of the reference.
    """

    statistic: str
    names: tuple[str, ...]
    value: Floats
    p_value: Floats
    critical: Floats
    rows: Floats
    reference_rows: Floats


@dataclass(frozen=True, slots=True)
class Window:
    """What is compared.

    Attributes:
        key: the stream.
        end_s: end, exclusive.
        coverage: ratio.
        pane: sum of its panes; laid out by `profile`.
        profile: the reference.
        prepared: the profile's arrays, of the key's segment.
    """

    key: StreamKey
    end_s: float
    coverage: float
    pane: Pane
    profile: Profile
    prepared: Prepared


def compared(window: Window, level: Level, settings: DetectSettings) -> ScoreTable:
    """Return the tests of a window: findings are OK where `family.judge` may still find drift."""
    tests = all_tests(window.pane, window.profile, window.prepared, level.q)
    names = tuple(dict.fromkeys(name for test in tests for name in test.names))
    index = {name: i for i, name in enumerate(names)}

    def column(each: list[Floats]) -> Floats:
        return np.concatenate(each) if each else np.empty(0)

    signal = np.array([index[n] for t in tests for n in t.names], np.int32)
    statistic = np.repeat([CODES[t.statistic] for t in tests], [len(t.names) for t in tests]).astype(np.uint8)
    value, rows = column([t.value for t in tests]), column([t.rows for t in tests])
    threshold = column([_thresholds(t, window.profile.blocks, settings, level.q) for t in tests])
    reference_rows = column([t.reference_rows for t in tests])
    enough = np.minimum(rows, reference_rows) >= settings.min_rows
    finding = np.where(enough & ~np.isnan(value), OK, TOO_FEW)
    if window.coverage < settings.min_coverage:
        finding = np.full(len(value), DEGRADED)
    return ScoreTable(
        key=window.key,
        window=level.window,
        start_s=window.end_s - level.length_s,
        end_s=window.end_s,
        coverage=window.coverage,
        names=names,
        signal=signal,
        statistic=statistic,
        value=value,
        threshold=threshold,
        p_value=column([t.p_value for t in tests]),
        rows=rows,
        reference_rows=reference_rows,
        finding=finding.astype(np.uint8),
    )


def all_tests(pane: Pane, profile: Profile, prepared: Prepared, alpha: float) -> list[Tests]:
    """Return every test of a pane, `critical` at level alpha."""
    with np.errstate(invalid="ignore", divide="ignore"):  # a signal without any row
        tests = [*_numeric(pane, prepared, alpha), *_categories(pane, prepared, alpha)]
    known = pane.layout.embedding_index
    tests += [_embedding(pane, e, known[e.name], alpha) for e in profile.embeddings if e.name in known]
    return [t for t in tests if t.names]


def _numeric(pane: Pane, reference: Prepared, alpha: float) -> list[Tests]:
    names = tuple(n.name for n in pane.layout.numeric)
    if not names:
        return []
    sizes = Sizes(pane.counts.sum(axis=1) * pane.design, reference.finite)
    old, new, flags = reference.counts, pane.counts, pane.flags
    tests = _distributions(names, (old, new), sizes, alpha, two_sample.BINS)
    tests.append(_of("ks", names, two_sample.ks(old, new, sizes, alpha), sizes))
    tests.append(
        _of("wasserstein", names, two_sample.wasserstein(reference.gaps, old, new, sizes, alpha), sizes)
    )
    every = Sizes((new.sum(axis=1) + flags[:, MISSING] + flags[:, INFINITE]) * pane.design, reference.rows)
    tails = Sizes(sizes.rows, reference.tail_rows)
    wrong = np.minimum(flags[:, TYPE] + flags[:, INFINITE], every.rows / pane.design)
    for statistic, events, before, of in (
        ("missing", flags[:, MISSING], reference.missing, every),
        ("type", wrong, reference.infinite, every),
        ("range", flags[:, BELOW] + flags[:, ABOVE], reference.tails, tails),
    ):
        tests.append(_rate(statistic, names, (events * pane.design, before), of, alpha))
    return tests


def _distributions(
    names: tuple[str, ...], counts: tuple[Floats, Floats], sizes: Sizes, alpha: float, bins: int
) -> list[Tests]:
    old, new = counts
    chi2 = two_sample.chi_square(old, new, sizes, alpha, bins)
    # The statistic less what both sizes make of it, so that windows and blocks can be compared.
    critical = distances.cohens_w(chi2.critical, sizes.rows, sizes.reference_rows)
    return [
        _of("psi", names, two_sample.psi(old, new, sizes, alpha, bins), sizes),
        _of("js", names, two_sample.jensen_shannon(old, new, sizes, alpha, bins), sizes),
        Tests("chi2", names, chi2.effect, chi2.p_value, critical, sizes.rows, sizes.reference_rows),
    ]


def _categories(pane: Pane, reference: Prepared, alpha: float) -> list[Tests]:
    names = tuple(c.name for c in pane.layout.categories)
    if not names:
        return []
    counts = np.zeros_like(reference.categories)
    for i in range(len(names)):
        found = pane.category(i)
        counts[i, : len(found)] = found
    sizes = Sizes(counts.sum(axis=1) * pane.design, reference.category_rows)
    tests = _distributions(names, two_sample.mixed(reference.categories, counts), sizes, alpha, CATEGORY_BINS)
    other = np.array([pane.category(i)[-1] for i in range(len(names))])
    missing, wrong = pane.category_flags.T
    every = Sizes(
        sizes.rows + (missing + wrong) * pane.design, reference.category_rows + reference.category_missing
    )
    for statistic, events, before, of in (
        ("missing", missing, reference.category_missing, every),
        ("type", wrong, np.zeros(len(names)), every),
        ("novel", other, reference.novel, sizes),
    ):
        tests.append(_rate(statistic, names, (events * pane.design, before), of, alpha))
    return tests


def _embedding(pane: Pane, reference: EmbeddingReference, index: int, alpha: float) -> Tests:
    weight, squares = (float(w) for w in pane.embedding_weights[index])
    rows = weight**2 / squares if squares else 0.0
    value = fourier.mmd2(pane.embedding(index), (weight, squares), reference.total, reference.rows)
    p_value = critical = float("nan")
    if all(reference.traces) and rows > 0:
        p_value = fourier.mmd2_p_value(value, rows, reference.rows, reference.traces)
        critical = fourier.mmd2_critical(alpha, rows, reference.rows, reference.traces)
    return Tests(
        "mmd", (reference.name,), *(np.array([x]) for x in (value, p_value, critical, rows, reference.rows))
    )


def _of(statistic: str, names: tuple[str, ...], tested: two_sample.Tested, sizes: Sizes) -> Tests:
    return Tests(
        statistic, names, tested.effect, tested.p_value, tested.critical, sizes.rows, sizes.reference_rows
    )


def _rate(
    statistic: str, names: tuple[str, ...], events: tuple[Floats, Floats], sizes: Sizes, alpha: float
) -> Tests:
    """Test whether bad values became more frequent; the effect is the rise of their share.

    The exact test takes a millisecond where the reference is large: a rise far from unusual is not put to it,
    its p-value is 1, which is on the safe side.
    """
    now, before = events
    old = before / sizes.reference_rows
    value = now / sizes.rows - old
    noise = np.sqrt(np.maximum(old * (1 - old), 1e-12) * nulls.noise(sizes.rows, sizes.reference_rows))
    p_value = np.where(np.isnan(value), np.nan, 1.0)
    tried = np.flatnonzero(value > noise)
    if len(tried):
        part = Sizes(sizes.rows[tried], sizes.reference_rows[tried])
        p_value[tried] = two_sample.rate(now[tried], before[tried], part, alpha).p_value
    critical = np.minimum(noise * _NORMAL.inv_cdf(1 - alpha), 1.0)
    return Tests(statistic, names, value, p_value, critical, sizes.rows, sizes.reference_rows)


_SPREAD: Final = {"psi": 2.0, "mmd": 2.0, "missing": 1.0, "range": 1.0, "novel": 1.0}
"""Standard error of a statistic whose true value is d, over sqrt(d (1/n + 1/m)): that of a divergence is
about 2, that of a share at most 1. Of the others it does not grow with d: their critical value covers it."""

_NORMAL: Final = NormalDist()

_SMOOTHED: Final = 1.1
"""A block is longer than the shortest window, and so less extreme than the most extreme window within it."""


def _thresholds(
    tests: Tests, blocks: Mapping[str, Mapping[str, BlockThreshold]], settings: DetectSettings, alpha: float
) -> Floats:
    """Return the effect that must be exceeded.

    It is the floor or what chance alone gives, whichever is more. Where blocks of the reference differ from
    the rest of it by d, more than the floor, it is d and what chance adds to a difference of d.
    """
    floor = float(getattr(settings.floors, tests.statistic))
    found = [blocks.get(name, {}).get(tests.statistic) for name in tests.names]
    known = _SMOOTHED * np.array([0.0 if block is None else block.quantile for block in found])
    spread = np.sqrt(known * nulls.noise(tests.rows, tests.reference_rows))
    added = _SPREAD.get(tests.statistic, 0.0) * _NORMAL.inv_cdf(1 - alpha) * spread
    seasonal = np.where(known > floor, known + np.fmax(tests.critical, 0.0) + added, 0.0)
    return np.fmax(np.fmax(tests.critical, floor), seasonal)
