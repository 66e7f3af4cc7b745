"""Alerts in a real Prometheus Alertmanager."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from gateway.config.monitor_alerts import AlertSettings
from gateway.monitor.alerts.part import Alerts
from tests.monitor.alerts.alarms import alarm
from tests.monitor.alerts.hooks import PATIENCE_S, receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus-alertmanager") is None, reason="no prometheus-alertmanager here"
)


@contextmanager
def alertmanager(directory: Path, hook: str) -> Iterator[str]:
    """Run one that tells `hook` at once; lend its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (directory / "am.yml").write_text(
        f"""route: {{receiver: all, group_by: [model], group_wait: 0s, group_interval: 1s}}
receivers: [{{name: all, webhook_configs: [{{url: "{hook}", send_resolved: true}}]}}]
"""
    )
    command = ["prometheus-alertmanager", f"--config.file={directory / 'am.yml'}"]
    command += [f"--storage.path={directory / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    with (
        (directory / "am.log").open("wb") as log,
        subprocess.Popen([*command, "--cluster.listen-address="], stdout=log, stderr=log) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: ready(f"{url}/-/ready"))
            yield url
        finally:
            process.kill()


def until(holds: Callable[[], bool]) -> None:
    """Ask again until it holds."""
    hopeless_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < hopeless_s, "it never came to hold"
        time.sleep(0.05)


def ready(url: str) -> bool:
    """Whether somebody answers there."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def alerts_at(url: str) -> list[dict[str, Any]]:
    """Return the alerts that stand there."""
    with urllib.request.urlopen(f"{url}/api/v2/alerts", timeout=5) as answer:
        found: list[dict[str, Any]] = json.load(answer)
        return found


def test_alarms_come_and_go_in_a_real_alertmanager(tmp_path: Path) -> None:
    """One alert for a group, with bounded labels and a link, told on by it, over when all have cleared."""
    now_s = time.time()
    settings = {"pages_url": "http://monitor.example:8010"}
    with receiver() as hook, alertmanager(tmp_path, hook.url) as url:
        given = AlertSettings.model_validate({**settings, "alertmanagers": [{"url": url, "resend": "1s"}]})
        with closing(Alerts(given)) as part:
            part.start()
            standing = [alarm("age", at_s=now_s, segment="region=x"), alarm("x" * 500, at_s=now_s, psi=9)]
            part.observe(standing, now_s)
            until(lambda: len(alerts_at(url)) == 1)
            (found,) = alerts_at(url)
            group = found["labels"].pop("group")
            assert found["labels"] == {
                "alertname": "ModelDrift",
                "model": "car_loan",
                "version": "1",
                "kind": "drift",
                "severity": "page",
            }
            assert found["annotations"]["subjects"] == f"{'x' * 128}, age (region=x)"
            assert found["annotations"]["summary"].endswith(" drifted (and 1 more)")
            assert found["generatorURL"].startswith("http://monitor.example:8010/models/car_loan#")
            part.observe([*standing, alarm("rooms", at_s=now_s + 1)], now_s + 1)
            until(lambda: "rooms" in json.dumps(alerts_at(url)))
            assert [one["labels"]["group"] for one in alerts_at(url)] == [group]
            told = json.loads(hook.next()[1])
            assert (told["status"], told["groupLabels"]) == ("firing", {"model": "car_loan"})
            part.observe([replace(one, cleared_s=time.time()) for one in standing], time.time())
            while json.loads(hook.next()[1])["status"] != "resolved":
                continue
            until(lambda: not alerts_at(url))


def test_an_alertmanager_that_was_away_is_told_of_what_stands(tmp_path: Path) -> None:
    """Nothing is lost but what came and went meanwhile."""
    with receiver() as hook:
        with alertmanager(tmp_path, hook.url) as url:
            pass
        given = AlertSettings.model_validate({"alertmanagers": [{"url": url, "resend": "1s"}]})
        with closing(Alerts(given)) as part:
            part.start()
            part.observe([alarm(at_s=time.time())], time.time())
            _, sender = part.alertmanagers[0]
            until(lambda: sender.failed > 0)
            assert "refused" in sender.error
