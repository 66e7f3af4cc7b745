"""The scores of one stream and window, in columns: a thousand signals are a few arrays, not objects."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import orjson

from gateway.monitor.values import Finding, Score, StreamKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

STATISTICS: Final = (
    *("psi", "js", "ks", "wasserstein", "chi2", "mmd", "adwin"),
    *("missing", "type", "range", "novel", "errors"),
)
"""By code. The first are of kind `drift`, from `missing` on of kind `quality`."""

CODES: Final = {name: code for code, name in enumerate(STATISTICS)}
FIRST_QUALITY: Final = CODES["missing"]
FINDINGS: Final = tuple(Finding)
_FINDING_CODES: Final = {finding: code for code, finding in enumerate(FINDINGS)}
OK, DRIFT, TOO_FEW, DEGRADED, NO_REFERENCE = (
    _FINDING_CODES[f]
    for f in (Finding.OK, Finding.DRIFT, Finding.TOO_FEW, Finding.DEGRADED, Finding.NO_REFERENCE)
)
_COLUMNS: Final = (
    "signal",
    "statistic",
    "value",
    "threshold",
    "p_value",
    "rows",
    "reference_rows",
    "finding",
)


@dataclass(slots=True, kw_only=True)
class ScoreTable:
    """All tests of one stream in one window; arrays have one element per test.

    Attributes:
        key: the stream.
        window: its name.
        start_s: begin.
        end_s: end, exclusive.
        coverage: of the window.
        names: of the signals.
        signal: indexes into `names`.
        statistic: codes into STATISTICS.
        value: of the statistic.
        threshold: above it the effect is called drift.
        p_value: of no drift; NaN where the test has none.
        rows: effective rows of the window.
        reference_rows: of the reference.
        finding: codes into FINDINGS.
    """

    key: StreamKey
    window: str
    start_s: float
    end_s: float
    coverage: float
    names: tuple[str, ...]
    signal: npt.NDArray[np.int32]
    statistic: npt.NDArray[np.uint8]
    value: Floats
    threshold: Floats
    p_value: Floats
    rows: Floats
    reference_rows: Floats
    finding: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.signal)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays and names, about."""
        return 200 + 42 * len(self) + 60 * len(self.names)

    def scores(self, signal: str | None = None) -> Iterator[Score]:
        """Give the tests as values, of one signal or of all."""
        for i in range(len(self)):
            name = self.names[self.signal[i]]
            if signal is None or name == signal:
                yield self.score(i)

    def score(self, index: int) -> Score:
        """Return one test."""
        return Score(
            key=self.key,
            signal=self.names[self.signal[index]],
            window=self.window,
            start_s=self.start_s,
            end_s=self.end_s,
            statistic=STATISTICS[self.statistic[index]],
            value=float(self.value[index]),
            threshold=float(self.threshold[index]),
            p_value=float(self.p_value[index]),
            rows=float(self.rows[index]),
            reference_rows=float(self.reference_rows[index]),
            finding=FINDINGS[self.finding[index]],
            coverage=self.coverage,
        )

    def to_bytes(self) -> bytes:
        """Return it compressed."""
        head = orjson.dumps(
            [list(self.key), self.window, self.start_s, self.end_s, self.coverage, self.names]
        )
        file = io.BytesIO()
        file.write(len(head).to_bytes(4, "little") + head)
        np.savez(file, **{name: getattr(self, name) for name in _COLUMNS})
        return zlib.compress(file.getvalue(), 1)


def from_bytes(data: bytes) -> ScoreTable:
    """Return what `ScoreTable.to_bytes` wrote.

    Raises:
        ValueError: it did not.
    """
    try:
        plain = zlib.decompress(data)
        size = int.from_bytes(plain[:4], "little")
        key, window, start_s, end_s, coverage, names = orjson.loads(plain[4 : 4 + size])
        with np.load(io.BytesIO(plain[4 + size :]), allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in _COLUMNS}
    except (zlib.error, KeyError, OSError, TypeError) as error:
        raise ValueError("no table of scores") from error
    return ScoreTable(
        key=StreamKey(*key),
        window=window,
        start_s=start_s,
        end_s=end_s,
        coverage=coverage,
        names=tuple(names),
        **columns,
    )
