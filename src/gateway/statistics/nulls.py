"""What distances are by chance: p-values and critical values from the sizes of both samples.

Sizes are effective rows, (sum of weights)^2 / sum of squared weights. All functions work elementwise on
arrays; `alpha` is the chance of a value above the critical one where nothing has changed. Approximations are
on the safe
side: the level that each keeps at 50 to 5,000 rows is measured by `loadtests/drift_levels.py` and shown in
docs/drift-statistics.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import special  # type: ignore[import-untyped]  # SciPy ships no types

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_LN2: Final = float(np.log(2))

LOGARITHM_STRETCH: Final = 1.0
"""Over the rows per bin: how much wider PSI and Jensen-Shannon are than chi-square; chosen by measurement."""

WASSERSTEIN_MARGIN: Final = 1.04
"""By how much the lognormal of equal mean and variance is stretched: the 95 % point of the integral of a
Brownian bridge's absolute value is 0.582 (Johnson and Killeen 1983), the lognormal's 0.569."""


def noise(rows: Floats | float, reference_rows: Floats | float) -> Floats:
    """Return 1/n + 1/m, infinite where a sample is empty."""
    with np.errstate(divide="ignore"):
        result: Floats = 1 / np.asarray(rows, float) + 1 / np.asarray(reference_rows, float)
    return result


def chi2_tail(value: Floats, freedom: Floats) -> Floats:
    """Return the chance that chi-square with so many degrees of freedom exceeds the value; 1 for none."""
    some = np.maximum(freedom, 1) / 2
    tail = special.gammaincc(some, np.maximum(value, 0.0) / 2)
    result: Floats = np.where(freedom > 0, tail, np.where(np.isnan(value), np.nan, 1.0))
    return result


def chi2_point(alpha: float, freedom: Floats) -> Floats:
    """Return the value that chi-square exceeds with chance alpha; 0 for no degree of freedom."""
    point = 2 * special.gammainccinv(np.maximum(freedom, 1) / 2, alpha)
    result: Floats = np.where(freedom > 0, point, 0.0)
    return result


def psi_p_value(value: Floats, bins: Floats, rows: Floats, reference_rows: Floats) -> Floats:
    """Return the chance of a PSI so large: (1/n + 1/m) chi-square with bins - 1 degrees of freedom.

    (Yurdakul and Naranjo, "Statistical properties of the population stability index", 2020.) Logarithms of
    small counts have heavier tails than that: `_stretch`. Bins must hold about equal shares, as those of
    `distances.coarsened` do.
    """
    return chi2_tail(value / (noise(rows, reference_rows) * _stretch(bins, rows, reference_rows)), bins - 1)


def psi_critical(alpha: float, bins: Floats, rows: Floats, reference_rows: Floats) -> Floats:
    """Return the PSI that is exceeded with chance alpha."""
    scale = noise(rows, reference_rows) * _stretch(bins, rows, reference_rows)
    result: Floats = scale * chi2_point(alpha, bins - 1)
    return result


def jensen_shannon_p_value(value: Floats, bins: Floats, rows: Floats, reference_rows: Floats) -> Floats:
    """Return the chance of a distance so large: near 0 the divergence is an eighth of the PSI."""
    divergence = np.square(value) * _LN2
    scale = noise(rows, reference_rows) * _stretch(bins, rows, reference_rows)
    return chi2_tail(8 * divergence / scale, bins - 1)


def jensen_shannon_critical(alpha: float, bins: Floats, rows: Floats, reference_rows: Floats) -> Floats:
    """Return the Jensen-Shannon distance that is exceeded with chance alpha."""
    scale = noise(rows, reference_rows) * _stretch(bins, rows, reference_rows)
    divergence = scale * chi2_point(alpha, bins - 1) / 8
    result: Floats = np.minimum(np.sqrt(divergence / _LN2), 1.0)
    return result


def ks_p_value(value: Floats, rows: Floats, reference_rows: Floats, error: Floats | float = 0.0) -> Floats:
    """Return the chance of a difference so large: Kolmogorov's limit, which is above the exact chance.

    On a grid the statistic is smaller than on the values, so the chance is again overstated.

    Args:
        value: of `distances.ks_grid`, or from sketches.
        rows: of the window.
        reference_rows: of the reference.
        error: sum of both sketches' rank errors; 0 for counts, which are exact.
    """
    root = 1 / np.sqrt(noise(rows, reference_rows))
    result: Floats = special.kolmogorov(root * np.maximum(value - error, 0.0))
    return result


def ks_critical(alpha: float, rows: Floats, reference_rows: Floats, error: Floats | float = 0.0) -> Floats:
    """Return the difference that is exceeded with chance alpha, sketch error included."""
    point = special.kolmogi(alpha) * np.sqrt(noise(rows, reference_rows))
    result: Floats = np.minimum(point + error, 1.0)
    return result


def wasserstein_moments(gaps: Floats, pooled: Floats) -> tuple[Floats, Floats]:
    """Return mean and variance of the distance between two samples of one row's noise each together.

    The difference of two empirical distribution functions is a Brownian bridge B times sqrt(1/n + 1/m);
    E|B| = sigma sqrt(2/pi), and for normal x, y with correlation r
    Cov(|x|, |y|) = sigma_x sigma_y (2/pi) (r asin r + sqrt(1 - r^2) - 1).

    Args:
        gaps: `[signals, bins - 1]` of `distances.widths`.
        pooled: `[signals, bins]`, counts of both samples together.

    Returns:
        Mean, times sqrt(1/n + 1/m); variance, times 1/n + 1/m; both `[signals]`.
    """
    total = np.maximum(pooled.sum(axis=-1, keepdims=True), 1e-300)
    below = np.clip(np.cumsum(pooled, axis=-1) / total, 0.0, 1.0)[..., :-1]
    deviation = np.sqrt(below * (1 - below))
    mean = np.sqrt(2 / np.pi) * (deviation * gaps).sum(axis=-1)
    weighted = deviation * gaps
    scale = np.maximum(deviation, 1e-12)
    lower = np.minimum(below[..., :, None], below[..., None, :])
    product = below[..., :, None] * below[..., None, :]
    r = np.clip((lower - product) / (scale[..., :, None] * scale[..., None, :]), -1.0, 1.0)
    kernel = (2 / np.pi) * (r * np.arcsin(r) + np.sqrt(1 - r * r) - 1)
    variance = np.einsum("...i,...ij,...j->...", weighted, kernel, weighted)
    return mean, np.maximum(variance, 0.0)


def wasserstein_p_value(
    value: Floats, moments: tuple[Floats, Floats], rows: Floats, reference_rows: Floats
) -> Floats:
    """Return the chance of a distance so large, by a lognormal of the null's mean and variance.

    Args:
        value: of `distances.wasserstein_grid`, in the unit of `moments`.
        moments: of `wasserstein_moments`.
        rows: of the window.
        reference_rows: of the reference.
    """
    centre, spread = _lognormal(moments, noise(rows, reference_rows))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (np.log(value / WASSERSTEIN_MARGIN) - centre) / spread
        result: Floats = np.where(value > 0, special.ndtr(-z), np.where(np.isnan(value), np.nan, 1.0))
    return result


def wasserstein_critical(
    alpha: float, moments: tuple[Floats, Floats], rows: Floats, reference_rows: Floats
) -> Floats:
    """Return the distance that is exceeded with chance alpha; 0 for a signal of one value."""
    centre, spread = _lognormal(moments, noise(rows, reference_rows))
    result: Floats = WASSERSTEIN_MARGIN * np.exp(centre - special.ndtri(alpha) * spread)
    return result


def chi_square_moments(reference: Floats, current: Floats) -> tuple[Floats, Floats]:
    """Return exact mean and variance of `distances.chi_square` given the margins of the 2 x bins table.

    Under the null the current rows are a random part of all: their counts are multivariate hypergeometric,
    whose factorial moments are in closed form (Haldane, "The first six moments of chi-square for an n-fold
    table", 1937-1940). Right for small counts too, where chi-square's own moments are not.

    Args:
        reference: `[signals, bins]`.
        current: `[signals, bins]`.

    Returns:
        Mean and variance, `[signals]`; those of chi-square above 1e5 rows, where rounding would spoil these.
    """
    pooled = reference + current
    n, total = current.sum(axis=-1), pooled.sum(axis=-1)
    m = total - n
    freedom = np.maximum((pooled > 0).sum(axis=-1) - 1.0, 0.0)
    chance = [np.ones_like(n)]
    for k in range(4):
        with np.errstate(divide="ignore", invalid="ignore"):
            chance.append(chance[-1] * (n - k) / (total - k))
    falling = [np.ones_like(pooled)]
    for k in range(4):
        falling.append(falling[-1] * (pooled - k))
    share = [np.divide(f, pooled, out=np.zeros_like(pooled), where=pooled > 0) for f in falling]
    first = (share[1] * chance[1][..., None] + share[2] * chance[2][..., None]).sum(axis=-1)
    fourth = sum(
        weight * falling[k] * chance[k][..., None] for k, weight in ((1, 1.0), (2, 7.0), (3, 6.0), (4, 1.0))
    )
    second = np.divide(fourth, pooled**2, out=np.zeros_like(pooled), where=pooled > 0).sum(axis=-1)
    for j, k in ((1, 1), (1, 2), (2, 1), (2, 2)):
        cross = share[j].sum(axis=-1) * share[k].sum(axis=-1) - (share[j] * share[k]).sum(axis=-1)
        second = second + cross * chance[j + k]
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = total**2 / (n * m)
        mean = factor * (first - n * n / total)
        variance = factor**2 * (second - first**2)
    exact = (total > 4) & (total <= 1e5) & (n > 0) & (m > 0)
    return np.where(exact, mean, freedom), np.where(exact, np.maximum(variance, 0.0), 2 * freedom)


def chi_square_p_value(value: Floats, moments: tuple[Floats, Floats]) -> Floats:
    """Return the chance of a statistic so large, by the gamma distribution of these moments."""
    shape, scale = _gamma(moments)
    tail = special.gammaincc(shape, np.maximum(value, 0.0) / scale)
    result: Floats = np.where(moments[0] > 0, tail, np.where(np.isnan(value), np.nan, 1.0))
    return result


def chi_square_critical(alpha: float, moments: tuple[Floats, Floats]) -> Floats:
    """Return the statistic that is exceeded with chance alpha."""
    shape, scale = _gamma(moments)
    result: Floats = scale * special.gammainccinv(shape, alpha)
    return result


def rate_p_value(events: Floats, rows: Floats, reference_events: Floats, reference_rows: Floats) -> Floats:
    """Return the chance of at least so many events in the window, given those of both samples together.

    Fisher's exact test, one-sided (more than the reference), for missing values, novel categories, type and
    range violations. Effective counts need not be whole: events are rounded down, so the chance is
    overstated.

    Args:
        events: of the window, 0 to `rows`.
        rows: of the window.
        reference_events: likewise of the reference.
        reference_rows: likewise.
    """
    from scipy.stats import hypergeom  # type: ignore[import-untyped]  # noqa: PLC0415  # slow to import

    k, n = np.floor(events), np.floor(np.maximum(rows, events))
    big_k, m = np.ceil(reference_events), np.floor(np.maximum(reference_rows, np.ceil(reference_events)))
    result: Floats = hypergeom.sf(k - 1, n + m, k + big_k, n)
    return np.where(k > 0, np.clip(result, 0.0, 1.0), 1.0)


def rate_upper(events: float, rows: float, alpha: float) -> float:
    """Return the rate that so few events exclude (Clopper and Pearson 1934): shown as a rate's threshold."""
    if rows <= events:
        return 1.0
    return float(special.betaincinv(events + 1, rows - events, 1 - alpha))


def _stretch(bins: Floats, rows: Floats, reference_rows: Floats) -> Floats:
    """Return by how much the null of a sum of logarithms is wider than chi-square, for few rows per bin."""
    with np.errstate(divide="ignore"):
        per_bin = np.minimum(rows, reference_rows) / bins
        result: Floats = 1 + LOGARITHM_STRETCH / per_bin
    return result


def _lognormal(moments: tuple[Floats, Floats], scale: Floats) -> tuple[Floats, Floats]:
    mean, variance = moments
    some = mean > 0
    square = np.log1p(np.divide(variance, mean * mean, out=np.zeros_like(mean), where=some))
    with np.errstate(divide="ignore"):
        centre = np.log(mean) + np.log(scale) / 2 - square / 2
    return centre, np.sqrt(np.maximum(square, 1e-300))


def _gamma(moments: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    mean, variance = moments
    mean = np.where(mean > 0, mean, 1.0)
    variance = np.where(variance > 0, variance, 2 * mean)
    return mean * mean / variance, variance / mean
