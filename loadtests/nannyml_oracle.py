"""Compares our estimates of performance with NannyML's own, run beside us in an environment of its own.

    make oracle                                        builds that environment, then compares
    python -m loadtests.nannyml_oracle                 compares: about two minutes
    python -m loadtests.nannyml_oracle --record        and writes the figures that the tests hold us to

The rows after the reference of NannyML's car_loan are cut into chunks in 20 random ways, and those of its
example of three classes too. Of each chunk six metrics are compared, as estimated without labels and as
realised with them. Exits with 1 where one differs by more than 1e-5. Thresholds are not compared, they are
not meant to agree: NannyML's are three deviations of the reference's chunks, ours a tolerance below the
reference's value.

What difference there is has two causes: NannyML rounds the points of an expected ROC curve to five digits;
and it takes rows of equal score in the order in which sorting leaves them, where we count them half. The
latter shows with three classes alone: of two, rows of equal score have equal probabilities. By that order
NannyML also decides which of the three classes it calibrates.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.statistics import cbpe_multiclass, isotonic
from loadtests import nannyml_ours
from loadtests.nannyml_chunkings import COUNT, METRICS, SEED, chunkings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from loadtests.nannyml_ours import Figures, Predictions

ROOT: Final = Path(__file__).resolve().parent.parent
ENVIRONMENT: Final = ROOT / "build" / "nannyml"
RECORDED: Final = ROOT / "tests" / "statistics" / "drift" / "nannyml_car_loan.json"
MOST: Final = 1e-5
"""Difference that is none."""

_DIGITS: Final = 8


def theirs(count: int) -> dict[str, Any]:
    """Return NannyML's figures, `nannyml_theirs`.

    Raises:
        FileNotFoundError: Its environment is not there: `make oracle` builds it.
        subprocess.CalledProcessError: It failed; its own words are on standard error.
    """
    python = ENVIRONMENT / "bin" / "python"
    command = [str(python), "-m", "loadtests.nannyml_theirs", "--count", str(count)]
    environment = {**os.environ, "NML_DISABLE_USAGE_LOGGING": "1", "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def car_loan(data: Path, count: int) -> Iterator[Iterator[Figures]]:
    """Yield our figures of the example of two classes, by chunking and chunk."""
    reference, analysis = nannyml_ours.car_loan(data)
    ones = np.ones(len(reference.truth))
    calibration = isotonic.fit(reference.scores[:, 0], reference.truth.astype(np.float64), ones)
    return _cut(analysis, count, lambda chunk: nannyml_ours.binary_figures(chunk, calibration))


def multiclass(data: Path, count: int, calibrated: Iterable[bool]) -> Iterator[Iterator[Figures]]:
    """Yield our figures of the example of three classes, likewise.

    NannyML leaves a class's scores as they are where calibration gains nothing in its cross-validation, which
    for one class hangs on the order of ties. We always calibrate; here we follow it: all else is compared.
    """
    reference, analysis = nannyml_ours.mc(data)
    fitted = cbpe_multiclass.fit(reference.scores, reference.truth, np.ones(len(reference.truth)))
    followed = [
        own if gains else nannyml_ours.AS_THEY_ARE for own, gains in zip(fitted, calibrated, strict=True)
    ]
    return _cut(analysis, count, lambda chunk: nannyml_ours.multiclass_figures(chunk, followed))


def _cut(
    analysis: Predictions, count: int, figures: Callable[[Predictions], Figures]
) -> Iterator[Iterator[Figures]]:
    for chunking in chunkings(len(analysis.truth), count):
        yield map(figures, analysis.chunks(chunking))


def largest(ours: Iterable[Iterable[Figures]], found: list[list[Any]]) -> dict[str, tuple[float, float]]:
    """Return the largest difference of each metric, of estimates and of realised values."""
    most = dict.fromkeys(METRICS, (0.0, 0.0))
    for own_chunks, their_chunks in zip(ours, found, strict=True):
        for own, their in zip(own_chunks, their_chunks, strict=True):
            for name in METRICS:
                apart = [_apart(a, b) for a, b in zip(own[name], their[name], strict=True)]
                most[name] = max(most[name][0], apart[0]), max(most[name][1], apart[1])
    return most


def _apart(own: float, their: float) -> float:
    """Return the difference; infinite where one alone has a value."""
    if math.isnan(own) or math.isnan(their):
        return 0.0 if math.isnan(own) and math.isnan(their) else math.inf
    return abs(own - their)


def record(found: dict[str, Any]) -> None:
    """Write NannyML's figures of car_loan with where they are from."""
    chunks = [
        [[round(value, _DIGITS) for name in METRICS for value in chunk[name]] for chunk in chunking]
        for chunking in found["car_loan"]["chunkings"]
    ]
    rows = sum(1 for _ in (nannyml_data() / "synthetic_car_loan_analysis.csv").open()) - 1
    bounds = [list(chunking.bounds) for chunking in chunkings(rows, len(chunks))]
    head = {
        "source": f"NannyML {found['version']}, CBPE of its car_loan example",
        "command": "python -m loadtests.nannyml_oracle --record",
        "seed": SEED,
        "columns": [f"{kind} {name}" for name in METRICS for kind in ("estimated", "realised")],
    }
    lines = ",\n".join(
        f'  {{"bounds": {json.dumps(edges)}, "chunks": [\n    '
        + ",\n    ".join(map(json.dumps, each))
        + "\n  ]}"
        for edges, each in zip(bounds, chunks, strict=True)
    )
    RECORDED.write_text(f'{json.dumps(head, indent=1)[:-2]},\n "chunkings": [\n{lines}\n]}}\n')


def nannyml_data() -> Path:
    """Return the folder of the data sets in NannyML's environment."""
    return next(ENVIRONMENT.glob("lib/python3.*/site-packages/nannyml/datasets/data"))


def main() -> None:
    """Compare, print the largest differences, and say by the exit status whether they are small."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=COUNT, help="chunkings of each example")
    parser.add_argument("--record", action="store_true", help=f"write {RECORDED.relative_to(ROOT)}")
    arguments = parser.parse_args()
    found, data = theirs(arguments.count), nannyml_data()
    examples = {
        "car_loan": car_loan(data, arguments.count),
        "mc": multiclass(data, arguments.count, found["mc"]["calibrated"]),
    }
    worst = 0.0
    for name, ours in examples.items():
        differences = largest(ours, found[name]["chunkings"])
        count = sum(map(len, found[name]["chunkings"]))
        print(f"{name}: {count} chunks of {arguments.count} chunkings, NannyML {found['version']}")
        for metric, (estimated, realised) in differences.items():
            print(f"  {metric:12} estimated {estimated:.1e}   realised {realised:.1e}")
            worst = max(worst, estimated, realised)
    print(f"largest difference {worst:.1e}, at most {MOST:.0e} is asked for")
    if arguments.record:
        record(found)
    sys.exit(worst > MOST)


if __name__ == "__main__":
    main()
