"""Make the sample model `car_loan`, its traffic and what its profile is made of, from NannyML's data set.

The data set is synthetic: 50,000 applications for a loan to learn from, and 50,000 that came later, which are
others than before from the 25,000th on. Its description: https://nannyml.readthedocs.io (Car Loan Dataset);
scripts/fetch_drift_data.py fetches it.
"""

import argparse
import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from skl2onnx import convert_sklearn  # type: ignore[import-untyped]  # ships no types
from skl2onnx.common.data_types import (  # type: ignore[import-untyped]
    FloatTensorType,
    StringTensorType,
)
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from wheels import write

_ROOT = Path(__file__).resolve().parent.parent
_SEED = 20
_LEARNED = 25_000
"""Rows of the reference that the model learns from; the profile is made of the others, which it never saw."""

NUMBERS = ("car_value", "debt_to_income_ratio", "loan_length", "driver_tenure")
CATEGORIES = ("salary_range", "repaid_loan_on_prev_car", "size_of_downpayment")

_CONFIG = """\
# Written by scripts/make_car_loan.py.
name: "car_loan"
platform: "onnxruntime_onnx"
max_batch_size: 256
{inputs}
output [ {{ name: "probabilities" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt" }} ]
version_policy: {{ all {{ }} }}
dynamic_batching {{ }}
"""


@dataclass(frozen=True, slots=True)
class Applications:
    """Applications for a loan.

    Attributes:
        numbers: `[rows, 4]`, in the order of NUMBERS.
        categories: `[rows, 3]` texts, in the order of CATEGORIES.
        repaid: `[rows]`, 1 where the loan was repaid.
    """

    numbers: npt.NDArray[np.float32]
    categories: npt.NDArray[np.object_]
    repaid: npt.NDArray[np.int64]

    def rows(self, begin: int, end: int | None = None) -> "Applications":
        """Return some of them."""
        return Applications(self.numbers[begin:end], self.categories[begin:end], self.repaid[begin:end])

    def inputs(self) -> npt.NDArray[np.object_]:
        """Return `[rows, 7]` values: numbers, then categories."""
        return np.hstack([self.numbers.astype(object), self.categories])


def read(table: bytes, targets: bytes | None = None) -> Applications:
    """Read a table of the data set, with its targets in it or in a table of their own."""
    rows = list(csv.DictReader(io.StringIO(table.decode())))
    labels = list(csv.DictReader(io.StringIO(targets.decode()))) if targets else rows
    return Applications(
        np.array([[float(row[name]) for name in NUMBERS] for row in rows], np.float32),
        np.array([[row[name] for name in CATEGORIES] for row in rows], object),
        np.array([float(row["repaid"]) for row in labels]).astype(np.int64),
    )


def train(learn: Applications, weight_of_repaid: float) -> Pipeline:
    """Fit gradient-boosted trees; seeded.

    Args:
        learn: to learn from.
        weight_of_repaid: how many rows one that was repaid counts for; beside 1 the probabilities are wrong.
    """
    first_category = len(NUMBERS)
    columns = ColumnTransformer(
        [
            ("numbers", FunctionTransformer(), slice(0, first_category)),
            (
                "categories",
                OneHotEncoder(handle_unknown="ignore"),
                slice(first_category, first_category + len(CATEGORIES)),
            ),
        ],
        sparse_threshold=0.0,
    )
    trees = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=15, random_state=_SEED)
    model = Pipeline([("columns", columns), ("trees", trees)])
    weights = np.where(learn.repaid == 1, weight_of_repaid, 1.0)
    model.fit(learn.inputs(), learn.repaid, trees__sample_weight=weights)
    return model


def onnx_of(model: Pipeline) -> bytes:
    """Return the model with one input per column, `[rows, 1]`."""
    inputs = [(name, FloatTensorType([None, 1])) for name in NUMBERS]
    inputs += [(name, StringTensorType([None, 1])) for name in CATEGORIES]
    options = {HistGradientBoostingClassifier: {"zipmap": False}}
    converted = convert_sklearn(
        model, "car_loan", inputs, options=options, target_opset={"": 17, "ai.onnx.ml": 3}
    )
    # The other output, the likelier class, follows from the probabilities.
    kept = [output for output in converted.graph.output if output.name == "probabilities"]
    del converted.graph.output[:]
    converted.graph.output.extend(kept)
    return bytes(converted.SerializeToString())


def table(applications: Applications, scores: npt.NDArray[np.float64] | None = None) -> pa.Table:
    """Return applications as a table; with `[rows, 2]` scores as the gateway logs them."""
    columns: dict[str, npt.NDArray[Any]] = {}
    columns |= {name: applications.numbers[:, i] for i, name in enumerate(NUMBERS)}
    columns |= {name: applications.categories[:, i] for i, name in enumerate(CATEGORIES)}
    if scores is not None:
        columns |= {f"probabilities[{i}]": scores[:, i].astype(np.float32) for i in range(scores.shape[1])}
    return pa.table({**columns, "repaid": applications.repaid})


def main() -> None:
    """Train both versions; write the model's folder, the profile's data and the traffic to replay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=_ROOT / "models" / "car_loan")
    parser.add_argument("--data", type=Path, default=_ROOT / "build" / "car_loan", help="folder for the data")
    parser.add_argument("--from", dest="fetched", type=Path, default=_ROOT / "build" / "drift-data")
    arguments = parser.parse_args()
    files = (
        (arguments.fetched / f"synthetic_car_loan_{name}.csv").read_bytes()
        for name in ("reference", "analysis", "analysis_target")
    )
    learned_from, analysis, target = files
    reference, later = read(learned_from), read(analysis, target)
    learn, judge = reference.rows(0, _LEARNED), reference.rows(_LEARNED)
    arguments.data.mkdir(parents=True, exist_ok=True)
    # Version 2 learned from a sample in which loans that were repaid are ten times as frequent as they are.
    for version, weight in ((1, 1.0), (2, 10.0)):
        model = train(learn, weight)
        write(arguments.into / str(version) / "model.onnx", onnx_of(model))
        scores = model.predict_proba(judge.inputs())
        auc = roc_auc_score(judge.repaid, scores[:, 1])
        print(f"car_loan version {version}: ROC AUC {auc:.4f} on held-out rows")
        if version == 1:
            pq.write_table(table(judge, scores), arguments.data / "reference.parquet")
    pq.write_table(table(later), arguments.data / "later.parquet")
    declared = [f'input [ {{ name: "{name}" data_type: TYPE_FP32 dims: [ 1 ] }} ]' for name in NUMBERS]
    declared += [f'input [ {{ name: "{name}" data_type: TYPE_STRING dims: [ 1 ] }} ]' for name in CATEGORIES]
    write(arguments.into / "labels.txt", b"not_repaid\nrepaid\n")
    write(arguments.into / "config.pbtxt", _CONFIG.format(inputs="\n".join(declared)).encode())


if __name__ == "__main__":
    main()
