"""Prints NannyML's own figures as JSON; run by its environment's Python, which has nothing of the gateway.

    build/nannyml/bin/python -m loadtests.nannyml_theirs --count 20

What is printed: `{"version", "car_loan": {"calibrated", "chunkings": [[{metric: [estimated, realised]}]]},
"mc": ...}`, chunk by chunk; `calibrated` has an entry per class. NannyML sends nothing: its telemetry is off.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from loadtests.nannyml_chunkings import COUNT, METRICS, Chunking, chunkings

if TYPE_CHECKING:
    Figures = list[dict[str, list[float]]]


def fitted(reference: Any, **named: Any) -> Any:
    """Return NannyML's CBPE as fitted to a table with labels.

    Args:
        reference: the table.
        named: arguments of CBPE: columns and the kind of problem.
    """
    import nannyml  # type: ignore[import-not-found]  # noqa: PLC0415  # in its own environment alone

    return nannyml.CBPE(metrics=list(METRICS), chunk_number=10, **named).fit(reference)


def figures(estimator: Any, analysis: Any, chunking: Chunking) -> Figures:
    """Return estimated and realised metrics of each chunk of a table with its labels beside it."""
    from nannyml.chunk import Chunk, Chunker  # type: ignore[import-not-found]  # noqa: PLC0415

    class Bounds(Chunker):  # type: ignore[misc]  # nothing is known of its base here
        def _split(self, data: Any) -> list[Any]:
            return [Chunk(f"{a}:{b}", data.iloc[a:b]) for a, b in pairwise(chunking.bounds)]

    estimator.chunker = Bounds()
    found = estimator.estimate(analysis.iloc[chunking.order].reset_index(drop=True))
    table = found.filter(period="analysis").to_df()
    values = {name: (table[name]["value"].tolist(), table[name]["realized"].tolist()) for name in METRICS}
    return [{name: [e[i], r[i]] for name, (e, r) in values.items()} for i in range(len(table))]


def car_loan(count: int) -> dict[str, Any]:
    """Return the figures of the binary example."""
    import nannyml  # noqa: PLC0415

    reference, analysis, labels = nannyml.load_synthetic_car_loan_dataset()
    whole = analysis.merge(labels, on="id", validate="one_to_one")
    estimator = fitted(
        reference,
        y_pred_proba="y_pred_proba",
        y_pred="y_pred",
        y_true="repaid",
        problem_type="classification_binary",
    )
    return {
        "calibrated": [calibrates(reference["repaid"], reference["y_pred_proba"])],
        "chunkings": [figures(estimator, whole, each) for each in chunkings(len(whole), count)],
    }


def multiclass(count: int) -> dict[str, Any]:
    """Return the figures of the example of three classes."""
    import nannyml  # noqa: PLC0415

    reference, analysis, labels = nannyml.load_synthetic_multiclass_classification_dataset()
    whole = analysis.merge(labels, on="id", validate="one_to_one")
    columns = {name: f"y_pred_proba_{name}" for name in sorted(reference["y_true"].unique())}
    estimator = fitted(
        reference,
        y_pred_proba=columns,
        y_pred="y_pred",
        y_true="y_true",
        problem_type="classification_multiclass",
    )
    return {
        "calibrated": [calibrates(reference["y_true"] == c, reference[s]) for c, s in columns.items()],
        "chunkings": [figures(estimator, whole, each) for each in chunkings(len(whole), count)],
    }


def calibrates(truth: Any, scores: Any) -> bool:
    """Tell whether NannyML finds that these scores gain by calibration."""
    from nannyml.calibration import (  # type: ignore[import-not-found]  # noqa: PLC0415
        IsotonicCalibrator,
        needs_calibration,
    )

    return bool(needs_calibration(truth.to_numpy().astype(int), scores.to_numpy(), IsotonicCalibrator()))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help="chunkings of each example")
    count = parser.parse_args().count
    os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
    warnings.simplefilter("ignore")
    import nannyml  # noqa: PLC0415

    found = {"version": nannyml.__version__, "car_loan": car_loan(count), "mc": multiclass(count)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
