"""All parts of a monitor over a database whose COMMIT fails: nothing is lost, nothing needs a restart."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gateway.config.monitor import MonitorConfig
from gateway.monitor.app import make_parts
from gateway.monitor.engine_core import Core, Offered
from gateway.monitor.store.database import open_database
from gateway.monitor.store.errors import StoreError
from tests.monitor import car_loans
from tests.monitor.watching import START_S

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.monitor.parts import Parts

MINUTES = 3
ROWS = 300


class Full(sqlite3.Connection):
    """Cannot commit while `full`."""

    full = False

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """Execute, or raise what a full disk does."""
        if self.full and args[0] == "COMMIT":
            raise sqlite3.OperationalError("database or disk is full")
        return super().execute(*args)


def full(path: str) -> sqlite3.Connection:
    """Connect for tests."""
    connection = sqlite3.connect(path, isolation_level=None, factory=Full, check_same_thread=False)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def all_parts(parts: Parts) -> list[Any]:
    """Return the parts as the monitor feeds them."""
    return [parts.pipeline, parts.panes, parts.performance, parts.arms, parts.detection, parts.alerts]


def config_of(directory: Path) -> MonitorConfig:
    """Return a configuration of short windows."""
    return MonitorConfig.model_validate(
        {
            "data": str(directory),
            "profiles": {"directories": [str(car_loans.ROOT / "models")]},
            "detection": {"windows": {"1m": 60}, "settle": "0s"},
            "alerts": {"webhooks": [{"name": "us", "url": "http://127.0.0.1:9/", "secret": {"env": "HOOK"}}]},
        }
    )


def lived(directory: Path, fails: frozenset[int]) -> dict[str, list[Any]]:
    """Watch minutes of drifting, mirrored traffic, with a checkpoint after each; return the database's rows.

    Args:
        directory: of the database.
        fails: minutes whose first COMMIT fails; another checkpoint makes up for it.
    """
    parts = make_parts(config_of(directory), lambda: START_S)
    log, chance = car_loans.Log(), np.random.default_rng(3)
    with open_database(directory / "monitor.db", now_s=0, connector=full) as database:
        connection = database.connection
        assert isinstance(connection, Full)
        core = Core(all_parts(parts), connection)
        core.restore()
        for minute in range(MINUTES):
            at_s = START_S + 60 * minute + 30
            rows = chance.integers(car_loans.DRIFT_FROM, 50_000, ROWS)
            for version, arm in ((1, ""), (1, "shadow:next")):
                data = log.frame(car_loans.batch(rows, at_s, version=version, arm=arm)).data
                core.take([Offered(data, at_s)])
            end_s = START_S + 60 * (minute + 1)
            parts.detection.evaluate(end_s)
            parts.alerts.observe(parts.detection.ledger.alarms(), end_s)
            if minute in fails:
                connection.full = True
                with pytest.raises(StoreError, match="full"):
                    core.checkpoint()
                connection.full = False
                assert core.stuck == ""
            core.checkpoint()
        names = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        return {
            name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in names
        }


def test_what_a_failed_checkpoint_wrote_is_written_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it, every table of every part holds what it does where no checkpoint fails."""
    monkeypatch.setenv("HOOK", "c2VjcmV0LW9mLXRoZS1ob29rLWhvb2s=")
    (tmp_path / "sound").mkdir()
    (tmp_path / "failing").mkdir()
    sound = lived(tmp_path / "sound", frozenset())
    failing = lived(tmp_path / "failing", frozenset({0, 2}))
    for name in ("detection_scores", "detection_alarms", "arms_pairs", "alerts_told", "performance_blocks"):
        assert sound[name], name
    # Sketches of the same rows differ: they choose at random. The other counts its flushes.
    by_chance = {"panes_sketches", "performance_meta"}
    assert {name for name in sound if sound[name] != failing[name]} <= by_chance
    assert all(len(sound[name]) == len(failing[name]) for name in by_chance)
