"""Random Fourier features: whether embeddings have moved, from sums that can be added and subtracted.

z(x) = [cos Wx, sin Wx] / sqrt(D/2) with W normal has z(x).z(y) close to exp(-gamma |x-y|^2) (Rahimi and Recht
2007), so the kernel two-sample statistic of Gretton et al. (JMLR 2012) needs the sum of z over each sample
alone. W comes from raw words of PCG64, whose stream NumPy promises not to change, through Box and Muller's
transform: the same on every machine up to the last bit of its logarithm and cosine. Needs NumPy alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

FEATURES: Final = 512
"""Default D."""


def normals(count: int, seed: int) -> Floats:
    """Return `[count]` standard normal numbers, the same for a seed everywhere."""
    half = (count + 1) // 2
    words = np.random.PCG64(seed).random_raw(2 * half)
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log(uniform[:half])), 2 * np.pi * uniform[half:]
    result: Floats = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
    return result


def directions(width: int, features: int, gamma: float, seed: int) -> Floats:
    """Return W, `[width, features / 2]`, for the kernel exp(-gamma |x-y|^2)."""
    w: Floats = np.sqrt(2 * gamma) * normals(width * (features // 2), seed).reshape(width, features // 2)
    return w


def projection(width: int, into: int, seed: int) -> npt.NDArray[np.float32]:
    """Return `[width, into]`, float32, that keeps squared lengths on average: rows times it are projected.

    (Johnson and Lindenstrauss 1984.) Seeded like `directions`: every gateway projects alike.
    """
    w = normals(width * into, seed).reshape(width, into) / np.sqrt(into)
    result: npt.NDArray[np.float32] = w.astype(np.float32)
    return result


def bandwidth(sample: Floats) -> float:
    """Return gamma by the median heuristic: 1 / median of squared distances of the sample, `[rows, width]`.

    Args:
        sample: at least 2 rows; a few hundred are plenty, for all pairs are looked at.
    """
    squares = np.einsum("ij,ij->i", sample, sample)
    apart = np.maximum(squares[:, None] + squares[None, :] - 2 * sample @ sample.T, 0.0)
    median = float(np.median(apart[np.triu_indices(len(sample), 1)]))
    return 1 / median if median > 0 else 1.0


def features(rows: Floats, w: Floats) -> Floats:
    """Return z, `[rows, features]`, of rows `[rows, width]`. Rows must be finite; each z has length 1."""
    angle = rows @ w
    scale = 1 / np.sqrt(w.shape[1])
    z: Floats = np.concatenate([np.cos(angle), np.sin(angle)], axis=-1) * scale
    return z


def mmd2(total: Floats, weights: tuple[float, float], reference: Floats, reference_rows: float) -> float:
    """Return the unbiased squared maximum mean discrepancy; NaN for fewer than 2 effective rows.

    Args:
        total: `[features]`, weighted sum of z over the window.
        weights: sum of weights, and of their squares.
        reference: `[features]`, sum of z over the reference.
        reference_rows: of the reference.
    """
    n, squares = weights
    pairs, reference_pairs = n * n - squares, reference_rows * (reference_rows - 1)
    if pairs <= 0 or reference_pairs <= 0:
        return float("nan")
    within = (float(total @ total) - squares) / pairs
    reference_within = (float(reference @ reference) - reference_rows) / reference_pairs
    return within + reference_within - 2 * float(total @ reference) / (n * reference_rows)


def spectrum(z: Floats) -> tuple[float, float]:
    """Return tr C^2 and tr C^3 of the features' covariance C over the reference: what the null needs.

    Args:
        z: `[rows, features]` of reference rows; a few thousand are enough. Fewer overstate both, which is
            safe.
    """
    centred = z - z.mean(axis=0)
    covariance = centred.T @ centred / len(z)
    squared = covariance @ covariance
    return float(np.trace(squared)), float(np.einsum("ij,ji->", squared, covariance))


def mmd2_p_value(value: float, rows: float, reference_rows: float, traces: tuple[float, float]) -> float:
    """Return the chance of an `mmd2` so large where nothing has changed.

    The null is (1/n + 1/m) sum of lambda_i (chi-square_1 - 1) over C's eigenvalues (Gretton et al. 2012,
    theorem 12): a shifted gamma distribution of the same variance and skewness.

    Args:
        value: of `mmd2`.
        rows: effective rows of the window.
        reference_rows: of the reference.
        traces: of `spectrum`.
    """
    from scipy.special import gammaincc  # type: ignore[import-untyped]  # noqa: PLC0415  # NumPy alone

    if np.isnan(value):
        return float("nan")
    shape, scale = _shifted_gamma(rows, reference_rows, traces)
    return float(gammaincc(shape, max(value / scale + shape, 0.0)))


def mmd2_critical(alpha: float, rows: float, reference_rows: float, traces: tuple[float, float]) -> float:
    """Return the `mmd2` that is exceeded with chance alpha; arguments as for `mmd2_p_value`."""
    from scipy.special import gammainccinv  # noqa: PLC0415  # NumPy alone elsewhere

    shape, scale = _shifted_gamma(rows, reference_rows, traces)
    return float(scale * (gammainccinv(shape, alpha) - shape))


def permuted(z: Floats, rows: int, rounds: int, seed: int) -> Floats:
    """Return `mmd2` of `rows` of the reference drawn at random against all others, sorted, `[rounds]`.

    What `mmd2_critical` is checked against, and the threshold itself where few reference rows are left.

    Args:
        z: `[reference rows, features]`.
        rows: of a window, below the number of reference rows.
        rounds: how often.
        seed: of the draws.
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    whole, others = z.sum(axis=0), len(z) - rows
    found = np.empty(rounds)
    for index in range(rounds):
        total = z[draw.choice(len(z), rows, replace=False)].sum(axis=0)
        found[index] = mmd2(total, (rows, rows), whole - total, others)
    return np.sort(found)


def _shifted_gamma(rows: float, reference_rows: float, traces: tuple[float, float]) -> tuple[float, float]:
    """Return shape and scale: the null is scale * (Gamma(shape) - shape)."""
    second, third = traces
    noise = 1 / max(rows, 1e-9) + 1 / max(reference_rows, 1e-9)
    variance = max(2 * noise**2 * second, 1e-300)
    skewness = max(8 * noise**3 * third / variance**1.5, 1e-6)
    shape = 4 / skewness**2
    return shape, float(np.sqrt(variance / shape))
