"""What pages show of one signal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.monitor import car_loans
from tests.monitor.watching import watched

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(120)
async def test_the_centroid_wanders_on_the_references_axes(tmp_path: Path) -> None:
    """Each step's is the mean of its rows, in the reference's deviations, on the axes of the profile."""
    async with watched(tmp_path) as run:
        served = [await run.minute(0, car_loans.DRIFT_FROM), await run.minute(car_loans.DRIFT_FROM, 50_000)]
        shown = await run.get("/v1/models/car_loan/distribution?signal=inputs&range=1h")
        profile = run.monitor.parts.catalog.find("car_loan", 1, "digest-1")
    assert profile is not None
    (inputs,) = (one for one in profile.embeddings if one.name == "inputs")
    known = {one.name: one for one in profile.numeric}
    expected = []
    for rows in served:
        values = {column.name: column.values[:, 0] for column in car_loans.batch(rows, 0.0).columns}
        means = [
            (values[name].mean() - known[name].mean) / np.sqrt(known[name].variance)
            for name in inputs.members
        ]
        expected.append(np.array(means) @ inputs.axes.T)
    assert len(inputs.members) > 2
    np.testing.assert_allclose(shown["embedding"]["current"], expected, atol=1e-5)
    assert len(shown["embedding"]["reference"]) == 512
