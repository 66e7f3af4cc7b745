"""The prediction log of a running gateway, put together from its section; nothing without one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from gateway.core.errors import ConfigError
from gateway.core.threads import run_to_end
from gateway.prediction_sinks import begin_producer, delivery_of
from gateway.predlog.accounts import Accounts
from gateway.predlog.join_keys import REQUEST_ID, Source
from gateway.predlog.policy import ModelPolicy, OutlierRule, Policies, Rule, SegmentRule, TensorRule
from gateway.predlog.pump import LogOptions, PredictionLog
from gateway.predlog.sampling import SamplingOptions
from gateway.predlog.wire import Codec
from gateway.telemetry.prediction_log_metrics import PredictionLogSources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from gateway.config.model_settings import NamedModelSettings
    from gateway.config.prediction_log import ModelLogSettings, PredictionLogSettings, TensorRuleSettings
    from gateway.config.schema import GatewayConfig
    from gateway.core.interfaces import BatchObserver
    from gateway.core.types import ModelSignature, VersionId

MAX_SECRET_BYTES = 64
"""Of the keyed hash of subjects."""


class PredictionLogging:
    """Owns the prediction log, if the configuration asks for one.

    Entered before the batchers are made, left after they have ended, so that every batch is offered.

    Args:
        config: the whole configuration.
        signature_of: what a version takes and gives, None where nobody knows any more; event loop only.

    Attributes:
        log: the log; None where there is none.

    Raises:
        ConfigError: a secret or a certificate is not to be had, a library is missing.
    """

    def __init__(
        self, config: GatewayConfig, signature_of: Callable[[VersionId], ModelSignature | None]
    ) -> None:
        settings = config.prediction_log
        self._grace_s = settings.close_grace_s if settings is not None else 0.0
        self.log = None if settings is None else _made(settings, config.models, signature_of)

    @property
    def observers(self) -> Sequence[BatchObserver]:
        """Who is to be told of batches."""
        return () if self.log is None else (self.log.tap,)

    def metrics(self) -> PredictionLogSources | None:
        """Return where a scrape looks; None without a log."""
        log = self.log
        if log is None:
            return None
        return PredictionLogSources(
            log=log.status, produced=log.accounts.by_stream, lanes=lambda: log.status().lanes
        )

    async def __aenter__(self) -> Self:
        """Begin to log."""
        if self.log is not None:
            self.log.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Deliver what there is within the grace; cancelling does not cut it short."""
        if self.log is None:
            return
        self.log.tap.close()
        with ThreadPoolExecutor(1, "prediction-log-close") as thread:
            await run_to_end(thread, self.log.close, self._grace_s)


def _made(
    settings: PredictionLogSettings,
    models: Sequence[NamedModelSettings],
    signature_of: Callable[[VersionId], ModelSignature | None],
) -> PredictionLog:
    accounts = Accounts()
    producer = begin_producer(settings.producer_name(), settings.sinks, time.time_ns())

    def hint(ratio: float) -> None:
        log.hint(ratio)

    delivery = delivery_of(settings.sinks, producer, accounts, hint)
    options = LogOptions(
        policies=policies_of(settings, {model.name: model.prediction_log for model in models}),
        linger_s=settings.linger_s,
        max_batch_bytes=int(settings.max_batch_bytes),
        ring_rows=settings.ring.max_rows,
        ring_bytes=int(settings.ring.max_bytes),
        codec=Codec[settings.compression.upper()],
        secret=_secret(settings),
    )
    log = PredictionLog(producer, signature_of, delivery, accounts, options)
    return log


def policies_of(settings: PredictionLogSettings, entries: Mapping[str, ModelLogSettings | None]) -> Policies:
    """Return what is logged of every model.

    Args:
        settings: the section.
        entries: what each entry of `models` says of its log, by name.

    Raises:
        ConfigError: the secret is not to be had.
    """
    secret = _secret(settings)
    own = {
        name: _policy(settings.defaults.overlaid(entry), f"models.{name}.prediction_log", secret)
        for name, entry in entries.items()
    }
    return Policies(_policy(settings.defaults, "prediction_log.defaults", secret), own)


def _secret(settings: PredictionLogSettings) -> bytes:
    if settings.secret is None:
        return b""
    secret = settings.secret.read().encode()
    if len(secret) > MAX_SECRET_BYTES:
        raise ConfigError(f"prediction_log.secret: {len(secret)} bytes, {MAX_SECRET_BYTES} are allowed")
    return secret


def _policy(settings: ModelLogSettings, place: str, secret: bytes) -> ModelPolicy:
    return ModelPolicy(
        enabled=settings.enabled,
        sampling=SamplingOptions(
            ratio=settings.sample_ratio,
            max_rows_per_s=settings.max_rows_per_s,
            key=_source(settings.key) or REQUEST_ID,
            subject=_source(settings.subject),
            pinned=_source(settings.always),
            keep_errors=settings.keep_errors,
            keep_canary=settings.keep_canary,
            secret=secret,
        ),
        inputs=_rules(settings.inputs),
        outputs=_rules(settings.outputs),
        segments=tuple(
            SegmentRule(name, _source(segment.source) or REQUEST_ID, segment.values, segment.max_values)
            for name, segment in settings.segments.items()
        ),
        outliers=tuple(
            OutlierRule(
                name,
                float("-inf") if outlier.below is None else outlier.below,
                float("inf") if outlier.above is None else outlier.above,
            )
            for name, outlier in settings.outliers.items()
        ),
        place=place,
    )


def _rules(settings: Mapping[str, TensorRuleSettings]) -> Mapping[str, TensorRule]:
    return {
        name: TensorRule(Rule(rule.rule), rule.length or 0, rule.edges, rule.labels)
        for name, rule in settings.items()
    }


def _source(text: str | None) -> Source | None:
    if text is None:
        return None
    kind, _, name = text.partition(":")
    return Source(kind, name)
