"""The whole monitor, with real data and its real API, by a clock of the test's own."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

import numpy as np
import orjson
import pytest

from tests.monitor import car_loans
from tests.monitor.alerts.hooks import receiver
from tests.monitor.watching import ROWS, START_S, watched

if TYPE_CHECKING:
    from pathlib import Path

METRICS: Final = car_loans.ROOT / "docs" / "drift.md"

PLACES: Final = (
    "/v1/health",
    "/v1/models",
    "/v1/models/car_loan",
    "/v1/models/car_loan/scores?window=5m",
    "/v1/models/car_loan/coverage",
    "/v1/models/car_loan/distribution?signal=car_value",
    "/v1/models/car_loan/distribution?signal=salary_range",
    "/v1/models/car_loan/distribution?signal=inputs",
    "/v1/models/car_loan/performance",
    "/v1/models/car_loan/arms?candidate=canary&baseline=stable",
    "/v1/models/car_loan/verdict?candidate=canary&baseline=stable",
    "/v1/models/car_loan/report?format=json",
    "/v1/alarms",
    "/v1/pipeline",
    "/ui/data/",
    "/ui/data/alarms",
    "/ui/data/pipeline",
    "/ui/data/models/car_loan",
    "/ui/data/models/car_loan/signal?signal=salary_range",
    "/ui/data/models/car_loan/performance",
    "/ui/data/models/car_loan/arms?candidate=canary&baseline=stable",
    "/ui/data/models/car_loan/alarms",
)


@pytest.mark.timeout(120)
async def test_drift_is_named_within_two_windows_and_told(tmp_path: Path) -> None:
    """Twelve healthy minutes without an alarm; then the data's own drift, told and shown everywhere."""
    with receiver() as hook:
        alerts = {"group_wait": "0s", "webhooks": [{"name": "chat", "url": hook.url}]}
        async with watched(tmp_path, alerts=alerts) as run:
            for _ in range(12):
                await run.minute(0, car_loans.DRIFT_FROM)
            assert (await run.get("/v1/alarms"))["alarms"] == []
            (model,) = (await run.get("/v1/models"))["models"]
            assert model["coverage"]["produced"] == model["coverage"]["applied"] == 12 * ROWS
            for _ in range(2):
                await run.minute(car_loans.DRIFT_FROM, 50_000)
            alarms = (await run.get("/v1/alarms"))["alarms"]
            assert "car_value" in {alarm["subject"] for alarm in alarms}
            told = orjson.loads((await asyncio.to_thread(hook.next))[1])
            assert "car_value" in {alarm["subject"] for alarm in told["alarms"]}
            for place in PLACES:
                await run.get(place)
            page = (await run.api.get("/metrics")).text
            documented = re.findall(r"`(gateway_monitor_\w+)`", METRICS.read_text())
            assert set(documented) == set(re.findall(r"^# TYPE (gateway_monitor_\w+)", page, re.MULTILINE))
            assert 'gateway_monitor_alarms{kind="drift",model="car_loan",severity="page"}' in page
            assert f'gateway_monitor_rows_total{{arm="",model="car_loan",version="1"}} {14 * ROWS}.0' in page


@pytest.mark.timeout(120)
async def test_labels_meet_their_predictions(tmp_path: Path) -> None:
    """Labels by HTTP: realised performance beside the estimate, complete and near the reference's."""
    async with watched(tmp_path) as run:
        served = [await run.minute(0, car_loans.DRIFT_FROM) for _ in range(11)]
        rows = np.unique(np.concatenate(served))
        truth = car_loans.repaid()
        labels = [{"key": f"row-{row}", "label": int(truth[row])} for row in rows.tolist()]
        taken = (await run.api.post("/v1/labels", json={"model": "car_loan", "labels": labels})).json()
        assert (taken["joined"], taken["refused"]) == (len(rows), 0)
        again = (await run.api.post("/v1/labels", json={"model": "car_loan", "labels": labels})).json()
        assert again["unchanged"] == len(rows)
        shown = await run.get("/v1/models/car_loan/performance?range=1h")
        found = {(m["metric"], m["kind"]): m["points"][-1]["value"] for m in shown["metrics"]}
        assert found["roc_auc", "realised"] == pytest.approx(0.968, abs=0.02)
        assert found["roc_auc", "estimated"] == pytest.approx(0.968, abs=0.02)


@pytest.mark.timeout(120)
async def test_a_canary_is_told_apart_for_a_gate(tmp_path: Path) -> None:
    """Version 2's probabilities are too high: the rollout's gate hears `fail`."""
    async with watched(tmp_path) as run:
        for _ in range(6):
            rows = run.generator.integers(0, car_loans.DRIFT_FROM, 4 * ROWS)
            await run.serve(rows[: 2 * ROWS], arm="stable")
            await run.serve(rows[2 * ROWS :], version=2, arm="canary")
            await run.close_minute()
        gate = "/v1/models/car_loan/verdict?candidate=canary&baseline=stable&rollout_id=r1&stable=1&canary=2"
        verdict = await run.get(gate)
        assert verdict["verdict"] == "fail", verdict["reason"]
        nobody = await run.get("/v1/models/car_loan/verdict?candidate=shadow:x&baseline=stable&rollout_id=1")
        assert nobody["verdict"] == "no_data"


async def test_what_was_applied_survives(tmp_path: Path) -> None:
    """After a restart the monitor knows what it knew, and a frame that comes again changes nothing."""
    async with watched(tmp_path) as run:
        await run.minute(0, car_loans.DRIFT_FROM)
        before = (await run.get("/v1/models"))["models"]
        log = run.log
    async with watched(tmp_path) as run:
        assert (await run.get("/v1/models"))["models"][0]["rows"] == before[0]["rows"]
        log._sequence -= 1
        frame = log.frame(car_loans.batch(np.arange(ROWS), START_S + 30))
        run.monitor.engine.offer(frame.data)
        await run.monitor.engine.call(lambda: None)
        assert (await run.get("/v1/models"))["models"][0]["rows"] == before[0]["rows"]
