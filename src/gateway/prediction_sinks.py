"""The prediction log's sinks, put together from their section. Sinks' libraries are imported where used."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from gateway.core.errors import ConfigError
from gateway.predlog.delivery import Delivery
from gateway.predlog.lane import Lane, LaneOptions
from gateway.predlog.sinks.cloudevents import CloudEventsOptions, CloudEventsSink
from gateway.predlog.spool.epochs import begin_epoch
from gateway.predlog.spool.options import Fsync, SpoolOptions
from gateway.predlog.stream.options import ClientTls, StreamOptions
from gateway.predlog.stream.sink import StreamSink
from gateway.predlog.wire import Producer
from gateway.transport.grpc_native_duplex import open_duplex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.config.prediction_sinks import (
        ClientTlsSettings,
        CloudEventsSinkSettings,
        NatsSinkSettings,
        ParquetSinkSettings,
        SinkSettings,
        StreamSinkSettings,
    )
    from gateway.predlog.accounts import Accounts
    from gateway.predlog.seams import FrameSink
    from gateway.predlog.sinks.parquet_store import ParquetStore


def begin_producer(name: str, settings: SinkSettings, now_ns: int) -> Producer:
    """Return this process as a producer, with an epoch later than any before in the same spool.

    Args:
        name: stable over restarts.
        settings: of the sinks.
        now_ns: wall clock, nanoseconds since the epoch.
    """
    if settings.spool is None:
        return Producer(name, now_ns)
    return Producer(name, begin_epoch(settings.spool.directory, now_ns))


def delivery_of(
    settings: SinkSettings, producer: Producer, accounts: Accounts, hint: Callable[[float], None]
) -> Delivery:
    """Return the way to all sinks of the section, not started.

    Args:
        settings: of the sinks.
        producer: this process.
        accounts: the producer's books.
        hint: told the sampling ratio that a monitor can follow, from a thread of its sink's.

    Raises:
        ConfigError: a library is missing, a secret or a certificate cannot be read.
    """
    return Delivery(
        [
            Lane(sink, _options(settings, sink.name, producer.epoch), accounts.lane(sink.name))
            for sink in _sinks(settings, producer, hint)
        ]
    )


def _options(settings: SinkSettings, name: str, epoch: int) -> LaneOptions:
    spool = settings.spool
    if spool is None:
        return LaneOptions(epoch=epoch, memory_bytes=int(settings.memory))
    return LaneOptions(
        epoch=epoch,
        memory_bytes=int(settings.memory),
        spool_directory=spool.directory / name,
        spool=SpoolOptions(max_bytes=int(spool.max_bytes), max_age_s=spool.max_age, fsync=Fsync(spool.fsync)),
    )


def _sinks(settings: SinkSettings, producer: Producer, hint: Callable[[float], None]) -> Iterator[FrameSink]:
    if settings.stream is not None:
        yield _stream(settings.stream, producer, hint)
    if settings.parquet is not None:
        yield _parquet(settings.parquet)
    if settings.nats is not None:
        yield _nats(settings.nats)
    if settings.cloudevents is not None:
        yield _cloudevents(settings.cloudevents)


def _stream(settings: StreamSinkSettings, producer: Producer, hint: Callable[[float], None]) -> StreamSink:
    options = StreamOptions(
        address=settings.target(),
        producer=producer.name,
        epoch=producer.epoch,
        tls=_client_tls(settings.tls),
        silence_s=settings.silence,
    )
    return StreamSink(options, open_duplex, hint)


def _client_tls(settings: ClientTlsSettings | None) -> ClientTls | None:
    if settings is None:
        return None
    return ClientTls(settings.ca_file, settings.certificate_file, settings.key_file, settings.server_name)


def _parquet(settings: ParquetSinkSettings) -> FrameSink:
    store = parquet_store(settings)
    from gateway.predlog.sinks.parquet import ParquetOptions, ParquetSink  # noqa: PLC0415 - an extra

    options = ParquetOptions(
        round_rows=settings.max_rows, round_s=settings.max_wait, retention_s=settings.retention
    )
    return ParquetSink(store, options)


def parquet_store(settings: ParquetSinkSettings) -> ParquetStore:
    """Return where a section's Parquet files lie.

    Raises:
        ConfigError: a library is missing, a secret cannot be read.
    """
    try:
        import gateway.predlog.sinks.parquet  # noqa: F401, PLC0415 - an extra
        from gateway.predlog.sinks.parquet_store import DirectoryStore  # noqa: PLC0415 - an extra
    except ImportError as exc:
        raise _missing("parquet", "parquet", exc) from exc
    if settings.directory is not None:
        return DirectoryStore(settings.directory)
    try:
        from gateway.predlog.sinks.parquet_objects import ObjectStore  # noqa: PLC0415 - an extra
    except ImportError as exc:
        raise _missing("parquet.url", "parquet,object-store", exc) from exc
    known = {name: secret.read() for name, secret in settings.credentials.items()}
    return ObjectStore(settings.url, {**settings.settings, **known})


def _nats(settings: NatsSinkSettings) -> FrameSink:
    try:
        from gateway.predlog.sinks.nats import NatsOptions, NatsSink  # noqa: PLC0415 - an extra
    except ImportError as exc:
        raise _missing("nats", "nats", exc) from exc
    try:
        tls = ssl.create_default_context(cafile=settings.ca_file) if settings.ca_file is not None else None
    except OSError as exc:
        raise ConfigError(f"prediction_log.sinks.nats: {settings.ca_file} cannot be used: {exc}") from exc
    return NatsSink(
        NatsOptions(
            servers=settings.servers,
            stream=settings.stream,
            prefix=settings.prefix,
            tls=tls,
            token=settings.token.read() if settings.token is not None else "",
            max_pending=settings.max_pending,
        )
    )


def _cloudevents(settings: CloudEventsSinkSettings) -> FrameSink:
    secret = settings.authorization
    return CloudEventsSink(
        CloudEventsOptions(
            url=settings.url,
            source=settings.source,
            namespace=settings.namespace,
            component=settings.component,
            endpoint=settings.endpoint,
            headers={} if secret is None else {"Authorization": secret.read()},
        )
    )


def _missing(sink: str, extra: str, error: ImportError) -> ConfigError:
    return ConfigError(f"prediction_log.sinks.{sink} needs pip install 'model-gateway[{extra}]': {error}")
