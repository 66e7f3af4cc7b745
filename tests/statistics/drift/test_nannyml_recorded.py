"""Performance of car_loan in 20 random chunkings: NannyML's own figures, of `nannyml_car_loan.json`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.statistics import isotonic
from loadtests import nannyml_ours
from loadtests.nannyml_chunkings import METRICS, chunkings

DATA = Path(__file__).parents[3] / "build" / "drift-data"
RECORDED = json.loads(Path(__file__).with_name("nannyml_car_loan.json").read_text())


@pytest.fixture(scope="module")
def ours() -> Any:
    reference, analysis = nannyml_ours.car_loan(DATA)
    ones = np.ones(len(reference.truth))
    calibration = isotonic.fit(reference.scores[:, 0], reference.truth.astype(float), ones)
    cut = chunkings(len(analysis.truth), seed=RECORDED["seed"])
    assert [list(each.bounds) for each in cut] == [each["bounds"] for each in RECORDED["chunkings"]]
    return [
        [nannyml_ours.binary_figures(chunk, calibration) for chunk in analysis.chunks(each)] for each in cut
    ]


@pytest.mark.parametrize("place", range(2 * len(METRICS)), ids=RECORDED["columns"])
def test_each_chunk_is_as_nannyml_has_it(ours: Any, place: int) -> None:
    """Estimated without labels and realised with them: every chunk within 1e-7, where 1e-5 would do."""
    metric, kind = METRICS[place // 2], place % 2
    found = [[chunk[metric][kind] for chunk in chunks] for chunks in ours]
    theirs = [[chunk[place] for chunk in each["chunks"]] for each in RECORDED["chunkings"]]
    assert len(theirs) == 20
    for chunks, recorded in zip(found, theirs, strict=True):
        assert chunks == pytest.approx(recorded, rel=0, abs=1e-7)
