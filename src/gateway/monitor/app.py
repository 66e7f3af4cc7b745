"""The monitor's composition: builds every part from the configuration, owns their start and their end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Self

from gateway.core.errors import ConfigError
from gateway.monitor.alerts.part import ENDED_S, Alerts
from gateway.monitor.arms.part import Arms
from gateway.monitor.detect.part import Detection
from gateway.monitor.engine import Engine, EngineClosed
from gateway.monitor.ingest.server import IngestServer
from gateway.monitor.judging import take_judgements, watch_coverage
from gateway.monitor.label_posts import LabelPosts
from gateway.monitor.metrics import CONTENT_TYPE, MonitorMetrics, snapshot
from gateway.monitor.pages.options import PageOptions
from gateway.monitor.pages.server import PageServer
from gateway.monitor.panes.part import Panes
from gateway.monitor.parts import Parts
from gateway.monitor.performance.part import Performance
from gateway.monitor.pipeline import Pipeline
from gateway.monitor.profile.catalog import ProfileCatalog
from gateway.monitor.profile.learning import Learning
from gateway.monitor.store.erasures import Erasures
from gateway.monitor.view import Answers
from gateway.monitor.view_performance import latest_results
from gateway.predlog.join_keys import subject_hash
from gateway.telemetry.logging import Logging
from gateway.telemetry.options import LogOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from gateway.config.monitor import MonitorConfig
    from gateway.config.monitor_ingest import NatsSourceSettings
    from gateway.monitor.performance.results import Estimated, Realised

_log = logging.getLogger(__name__)

ALERTS_S: Final = 1.0
"""How often alarms are looked at for who is to be told: a group's wait is of seconds."""
_DAY_S: Final = 86_400.0


class Monitor:
    """The whole monitor on the running event loop; entering starts it, leaving makes a last checkpoint.

    Args:
        config: as read.
        wall_s: wall clock, seconds since the epoch.

    Attributes:
        parts: on the engine's thread alone.
        engine: that runs them.
    """

    def __init__(self, config: MonitorConfig, wall_s: Callable[[], float] = time.time) -> None:
        self._config = config
        self._wall_s = wall_s
        self._hash_subject = _hash_of(config)
        self._resources = AsyncExitStack()
        self._metrics = MonitorMetrics()
        self._latest: tuple[tuple[str, Realised | Estimated], ...] = ()
        self.parts = make_parts(config, wall_s)
        learning = Learning(self.parts.panes, self.parts.catalog, config.effective_profiles())
        self.engine = Engine(
            [
                self.parts.pipeline,
                self.parts.panes,
                self.parts.performance,
                self.parts.arms,
                self.parts.detection,
                self.parts.alerts,
            ],
            config.database,
            config.engine,
            on_minute=[learning.evaluate, self._note_profiles, self.parts.detection.evaluate, self._judge],
            wall=wall_s,
            erasures=self.parts.erasures,
        )

    @property
    def pages_url(self) -> str:
        """Address of the pages; valid once entered."""
        host = self._config.pages.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._pages.port}"

    @property
    def ingest(self) -> tuple[str, ...]:
        """Addresses of the log stream."""
        settings = self._config.effective_ingest()
        found = [f"unix:{settings.socket}" if settings.socket else "", settings.listen]
        return tuple(filter(None, [*found, *(settings.nats.servers if settings.nats else ())]))

    async def __aenter__(self) -> Self:
        """Restore the state, take rows in, serve the pages.

        Raises:
            ConfigError: an address cannot be bound, a certificate or secret cannot be read.
            StoreError: the database cannot be used.
        """
        try:
            await self._start()
        except BaseException:
            await self._resources.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop taking rows in, make a last checkpoint, stop telling."""
        await self._resources.aclose()

    async def _start(self) -> None:
        config, enter = self._config, self._resources
        enter.enter_context(Logging(LogOptions(format=config.log.format, level=config.log.level)))
        try:
            config.data.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ConfigError(f"{config.data}: cannot be made: {exc.strerror}") from exc
        await asyncio.to_thread(self.engine.start)
        enter.push_async_callback(self.engine.aclose)
        self.parts.alerts.start()
        enter.callback(self.parts.alerts.close)
        token = config.pages.token.read() if config.pages.token else ""
        options = PageOptions(
            host=config.pages.host,
            port=config.pages.port,
            token=token,
            max_body_bytes=int(config.pages.max_body),
            hosts=config.pages.hosts,
            windows=config.detection.windows,
            usual_range=config.pages.range,
        )
        ingest = config.effective_ingest()
        server = IngestServer(self.engine, ingest, LabelPosts(self.engine, self.parts, self._wall_s).post)
        view = Answers(
            engine=self.engine,
            parts=self.parts,
            hash_subject=self._hash_subject,
            connected=lambda: server.producers,
            wall_s=self._wall_s,
        )
        self._pages = PageServer(view, options, self.metrics)
        await self._pages.start()
        enter.push_async_callback(self._pages.stop)
        await server.start()
        enter.push_async_callback(server.aclose)
        if ingest.nats is not None:
            await self._read_nats(ingest.nats)
        telling = asyncio.create_task(self._tell(), name="alerts")
        enter.push_async_callback(_ended, telling)

    async def _read_nats(self, settings: NatsSourceSettings) -> None:
        try:
            from gateway.monitor.ingest.nats_source import NatsSource  # noqa: PLC0415 - needs an extra
        except ImportError as exc:
            raise ConfigError("ingest.nats needs the extra nats: pip install 'model-gateway[nats]'") from exc
        source = NatsSource(self.engine, settings)
        await source.start()
        self._resources.push_async_callback(source.aclose)

    def _note_profiles(self, now_s: float) -> None:
        """Note what each version is compared with: pages mark when that changed."""
        parts = self.parts
        for model, version, digest in list(parts.pipeline.versions):
            profile = parts.catalog.find(model, version, digest)
            if profile is not None:
                parts.pipeline.profile((model, version, digest), profile.id, now_s)

    def _judge(self, now_s: float) -> None:
        self._latest = tuple(latest_results(self.parts, now_s))
        ledger, settings = self.parts.detection.ledger, self._config.detection
        performance = self._config.performance
        stale_s = performance.stale * performance.window
        take_judgements(ledger, self.parts.performance.evaluate(now_s), now_s, stale_s)
        watch_coverage(ledger, self.parts.panes, (settings.min_coverage, settings.settle), now_s)

    async def _tell(self) -> None:
        """Bring alarms and those who are told of them together, once a second."""
        while True:
            await asyncio.sleep(ALERTS_S)
            with contextlib.suppress(EngineClosed):
                await self.engine.call(self._observe)

    def _observe(self) -> None:
        now_s = self._wall_s()
        alarms = self.parts.detection.ledger.alarms(since_s=now_s - ENDED_S, limit=10_000)
        self.parts.alerts.observe(alarms, now_s)

    async def metrics(self) -> tuple[str, bytes]:
        """Return content type and body of the metrics page.

        Raises:
            EngineClosed: the monitor ends.
        """
        status = self.engine.status()
        found = await self.engine.call(lambda: snapshot(self.parts, status, self._latest, self._wall_s()))
        return CONTENT_TYPE, self._metrics.render(found)


def make_parts(config: MonitorConfig, wall_s: Callable[[], float] = time.time) -> Parts:
    """Return the parts that a configuration asks for; nothing is opened yet.

    Raises:
        ConfigError: a webhook's secret cannot be read.
    """
    profiles = config.effective_profiles()
    catalog = ProfileCatalog(profiles.directories, profiles.learned)
    panes = Panes(catalog, config.panes)
    detection = Detection(panes, catalog, config.detection)
    records_s = config.performance.records.days * _DAY_S
    erasures = Erasures(max(records_s, config.panes.minutes, config.panes.hours))
    return Parts(
        config=config,
        catalog=catalog,
        panes=panes,
        detection=detection,
        arms=Arms(panes, detection.ledger, config.arms),
        performance=Performance(catalog, config.performance, config.labels, erasures.tombstones),
        pipeline=Pipeline(),
        alerts=Alerts(config.alerts, wall_s=wall_s),
        erasures=erasures,
    )


def _hash_of(config: MonitorConfig) -> Callable[[str], int] | None:
    """Return the keyed hash of subjects' names, the gateways' own; None without a key."""
    if config.subject_key is None:
        return None
    secret = config.subject_key.read().encode()
    return lambda subject: subject_hash(secret, subject.encode())


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
