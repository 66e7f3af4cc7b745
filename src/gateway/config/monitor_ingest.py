"""The sections `engine:`, `panes:` and `ingest:` of a monitor's configuration."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated, Self

from pydantic import ByteSize, Field, PositiveInt, model_validator

from gateway.config.registry_settings import SecretSettings  # noqa: TC001 - pydantic reads it
from gateway.config.rollout_values import Duration, PositiveDuration  # noqa: TC001 - likewise
from gateway.config.section import Section

MIB = 1 << 20

Size = Annotated[ByteSize, Field(ge=MIB)]


class EngineSettings(Section):
    """The one thread that owns the monitor's state, and how often that state is made durable."""

    inbox: Size = ByteSize(64 * MIB)
    """Frames that wait to be applied; gateways are given credit for what is free of it."""
    checkpoint: PositiveDuration = 5.0
    """Longest time between two checkpoints; what was applied since the last is sent again after a crash."""
    checkpoint_bytes: Size = ByteSize(256 * MIB)
    """A checkpoint is made earlier when so much was applied."""
    settle: Duration = 20.0
    """How long after its end a minute is looked at: rows may be under way."""
    expire: PositiveDuration = 300.0
    """How often what is beyond its retention is deleted."""


class PanesSettings(Section):
    """How long sums over rows are kept, and how many of them."""

    minutes: PositiveDuration = 2 * 86_400.0
    """Panes of a minute are kept so long; rows that are older still are counted `late` and left out."""
    hours: PositiveDuration = 30 * 86_400.0
    """Panes and sketches of an hour are kept so long."""
    future: Duration = 120.0
    """Rows that claim to be from further ahead than this are counted `future` and taken as of now."""
    memory: Size = ByteSize(512 * MIB)
    """Panes in memory. When they are more, older ones are read from the database when asked for, then no new
    segments are taken on."""
    models: PositiveInt = 128
    """Model versions with panes; rows of further ones are counted `unwatched`."""
    arms: Annotated[int, Field(ge=2, le=256)] = 16
    """Arms told apart per version; rows of further ones are counted under arm `other`."""
    segment_values: Annotated[int, Field(ge=1, le=1000)] = 20
    """Values told apart per segment column, the first that came; the rest is `column=other`."""
    streams_per_model: PositiveInt = 256
    """Arms times segments of a version; beyond it no new segments are taken on."""
    streams: PositiveInt = 2048
    """Of all versions together, likewise."""
    reservoir_rows: Annotated[int, Field(ge=0, le=1_000_000)] = 20_000
    """Rows kept in memory of a version without a profile, to learn one from; 0: none."""
    reservoir: Size = ByteSize(64 * MIB)
    """Memory of all such rows together."""
    embedding_rows: PositiveInt = 1024
    """Rows per batch whose embedding is computed; of more, so many at random stand for the rest."""
    sketch_rows: PositiveInt = 8192
    """Rows per batch that go into the hours' quantile sketches, likewise."""


class IngestTlsSettings(Section):
    """Certificates of the log stream by TCP. Both sides show one."""

    certificate_file: Path
    """The monitor's certificate chain, PEM."""
    key_file: Path
    """Its private key, PEM."""
    client_ca_file: Path
    """CAs that gateways' certificates must come from, PEM."""


class NatsSourceSettings(Section):
    """Frames read from NATS JetStream (extra `nats`), for many gateways and many monitors."""

    servers: Annotated[tuple[str, ...], Field(min_length=1)] = ("nats://127.0.0.1:4222",)
    """URLs of the cluster's servers."""
    stream: str = "PREDICTIONS"
    """Name of the JetStream stream, as the gateways' sink has it."""
    subjects: Annotated[tuple[str, ...], Field(min_length=1, max_length=256)] = ("predictions.>",)
    """Subjects that this monitor reads, `PREFIX.MODEL.PRODUCER` with `*` and `>`. Monitors of a fleet divide
    the models among them; each reads `PREFIX._.>` too, the gateways' accounts."""
    durable: Annotated[str, Field(pattern=r"^[A-Za-z0-9_\-]+$")] = "monitor"
    """Name of the durable consumer, different for each monitor of a fleet: one that comes back goes on where
    it was. With several subjects, consumers are named `NAME-0`, `NAME-1` and so on."""
    token: SecretSettings | None = None
    """Sent at connecting."""
    ca_file: Path | None = None
    """CAs to trust, PEM, for `tls://`."""
    batch: Annotated[int, Field(ge=1, le=4096)] = 64
    """Messages asked for at a time."""
    ack_wait: PositiveDuration = 60.0
    """The server sends a frame again that is not durable here after so long."""


class IngestSettings(Section):
    """Where frames come from."""

    socket: Path | None = None
    """Unix socket of the log stream, for gateways on this host; made with mode 0600. Unset: none."""
    listen: str = ""
    """`host:port` of the log stream by TCP; empty: none."""
    tls: IngestTlsSettings | None = None
    """For `listen`; without it only a loopback address is allowed."""
    max_streams: Annotated[int, Field(ge=1, le=10_000)] = 256
    """Gateways connected at a time; further ones are refused."""
    nats: NatsSourceSettings | None = None
    """Unset: none."""

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        host = self.listen.rpartition(":")[0].strip("[]")
        if self.listen and self.tls is None and host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(f"listen on {self.listen} needs tls: only a loopback address may go without")
        if self.tls is not None and not self.listen:
            raise ValueError("tls is for listen, which is not set")
        return self
