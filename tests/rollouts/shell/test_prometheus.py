"""The prometheus gate against a real Prometheus that scrapes a page of the test."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from gateway.core.rollout import PrometheusGate
from gateway.rollouts.asking import Answer, Asker
from gateway.rollouts.effects import AskGate
from tests.rollouts.shell.http_peer import peer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = shutil.which("prometheus")
PAGE = b"""# TYPE errors_total counter
errors_total{model="m",version="1"} 3
errors_total{model="m",version="2"} 12
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="needs prometheus: apt-get install prometheus"),
]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with peer() as page:
        page.reply = lambda: (200, PAGE)
        config = tmp_path / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
            "scrape_configs:\n"
            f"  - {{job_name: page, static_configs: [{{targets: ['{page.url.removeprefix('http://')}']}}]}}\n"
        )
        port = _free_port()
        assert PROGRAM is not None
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    PROGRAM,
                    f"--config.file={config}",
                    f"--storage.tsdb.path={tmp_path / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()
                process.wait()


async def ask(url: str, query: str) -> Answer:
    gate = PrometheusGate(url, query, timeout_s=5.0)
    return await Asker().ask(AskGate("line", "id", 0, "g.prometheus", gate, {"stable": 1, "canary": 2}), "m")


async def scraped(url: str) -> None:
    """Wait until the page has been scraped."""
    async with asyncio.timeout(60):
        while (await ask(url, "sum(errors_total)")).value is None:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.1)


async def test_a_real_prometheus_answers(url: str) -> None:
    await scraped(url)
    ratio = (
        'sum(errors_total{model="{model}",version="{canary}"}) '
        '/ sum(errors_total{model="{model}",version="{stable}"})'
    )
    assert await ask(url, ratio) == Answer(value=4.0)
    assert await ask(url, "scalar(sum(errors_total))") == Answer(value=15.0)
    assert await ask(url, 'errors_total{version="9"}') == Answer(value=None)
    assert await ask(url, "0 / 0 * sum(errors_total)") == Answer(value=None)
    assert "the query gives 2 series" in (await ask(url, "errors_total")).error
    assert "answered 400" in (await ask(url, "sum(")).error
    assert "parse error" in (await ask(url, "sum(")).error
    assert "scalar or an instant vector" in (await ask(url, "errors_total[1m]")).error
