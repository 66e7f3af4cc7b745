"""Detection on real data: car_loan's drift begins at row 25,000 of what came later."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateway.commands.monitor_profile import ProfileOptions, made_from
from gateway.monitor.profile.artifact import sealed
from gateway.monitor.profile.reference import Profile
from tests.monitor import car_loans
from tests.monitor.detect.streams import Watched

ROWS_PER_MINUTE = 50


@pytest.fixture(scope="module")
def profile() -> Profile:
    options = ProfileOptions(
        data=car_loans.ROOT / "build" / "car_loan" / "reference.parquet",
        model="car_loan",
        out=Path(),
        version=1,
        task="binary",
        label="repaid",
    )
    return made_from(options)


def test_drift_is_found_within_500_rows_and_no_alarm_comes_before(profile: Profile) -> None:
    """At 50 rows a minute the first alarm comes with rows 25,000 to 25,500, and it names what drifted."""
    watched = Watched(profile)
    for first in range(0, car_loans.DRIFT_FROM + 500, ROWS_PER_MINUTE):
        watched.apply(car_loans.batch(np.arange(first, first + ROWS_PER_MINUTE), watched.now_s + 1))
        watched.run(1, rows=0)
        if first + ROWS_PER_MINUTE <= car_loans.DRIFT_FROM:
            assert watched.detection.ledger.alarms() == ()
    subjects = {alarm.subject for alarm in watched.detection.ledger.standing()}
    assert {"car_value", "salary_range", "repaid_loan_on_prev_car", "inputs"} <= subjects


def test_reference_performance_and_calibration_are_in_the_profile(profile: Profile) -> None:
    """The held-out half of the reference was labelled: how good the model was is known."""
    assert 0.95 < profile.performance["roc_auc"] < 0.99
    assert profile.calibration is not None
    assert (np.diff(profile.calibration[1]) >= 0).all()
    assert profile.blocks["car_value"]["psi"].blocks == 50
    assert sealed(replace(profile, id="")).id == profile.id
