"""Where the prediction log goes: `prediction_log.sinks`, and the spool that keeps it while they are away."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ByteSize, Field, PositiveInt, model_validator

from gateway.config.registry_settings import SecretSettings  # noqa: TC001 - pydantic reads it
from gateway.config.rollout_values import Duration, PositiveDuration, check_url
from gateway.config.section import Section

MIB = 1 << 20
GIB = 1 << 30


def check_producer(name: str) -> str:
    """Return a producer's name: it travels in headers, which take printable ASCII alone.

    Raises:
        ValueError: it has other characters.
    """
    if not (name.isascii() and name.isprintable()):
        raise ValueError(f"a producer's name is of printable ASCII characters, got {name!r}")
    return name


ProducerName = Annotated[str, Field(max_length=128), AfterValidator(check_producer)]


class SpoolSettings(Section):
    """Frames on the local disk while a sink is away or slow, and over a restart."""

    directory: Path
    """For this process alone; made if it is not there. Each sink has a folder in it."""
    max_bytes: ByteSize = Field(ByteSize(2 * GIB), ge=MIB)
    """Of each sink; beyond, the oldest frames that were never sent are dropped and counted."""
    max_age: PositiveDuration = 86_400.0
    """Frames that are older are dropped and counted."""
    fsync: Literal["off", "group", "always"] = "group"
    """`group`: flushed every second or four mebibytes; that much a loss of power may take. `always`: each
    frame. `off`: when the kernel likes; a crash of this process alone takes nothing that was written."""


class ClientTlsSettings(Section):
    """Transport security towards a monitor; paths relative to the configuration file."""

    ca_file: Path
    """CAs that the monitor's certificate must come from, PEM."""
    certificate_file: Path | None = None
    """This gateway's certificate chain, PEM, for monitors that ask who is there."""
    key_file: Path | None = None
    """Its private key, PEM."""
    server_name: str = ""
    """Name in the monitor's certificate; empty: the host of `address`."""

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("give both certificate_file and key_file, or neither")
        return self


class StreamSinkSettings(Section):
    """The stream to `gateway monitor`."""

    socket: Path | None = None
    """Unix socket of a monitor on this host."""
    address: str = Field("", pattern=r"^$|^[^\s/]+:[0-9]{1,5}$")
    """`host:port` of a monitor elsewhere; only one of the two."""
    tls: ClientTlsSettings | None = None
    """For `address`; without it only a loopback address is allowed."""
    silence: PositiveDuration = 10.0
    """A monitor that has frames and says nothing for so long counts as lost; frames go to the spool then."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.socket is None) == (not self.address):
            raise ValueError("give exactly one of socket, address")
        host = self.address.rpartition(":")[0].strip("[]")
        if self.address and self.tls is None and host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(f"address {self.address} needs tls: only a loopback address may go without")
        if self.tls is not None and self.socket is not None:
            raise ValueError("tls is for address, not for a socket")
        return self

    def target(self) -> str:
        """Return the address in gRPC's form."""
        return self.address or f"unix:{self.socket}"


class ParquetSinkSettings(Section):
    """Parquet files by model and hour (extra `parquet`; `object-store` besides for `url`)."""

    directory: Path | None = None
    """Root of the files, on a local disk."""
    url: str = Field("", pattern=r"^$|^(s3|gs|az|https)://\S+$")
    """Root of the files in an object store; only one of the two."""
    credentials: dict[str, SecretSettings] = Field(default_factory=dict)
    """For `url`, by obstore's names: `access_key_id`, `secret_access_key`, ...; empty: the environment's."""
    settings: dict[str, str] = Field(default_factory=dict)
    """For `url`, by obstore's names: `endpoint`, `region`, ..."""
    max_rows: PositiveInt = 131_072
    """Files are closed when so many rows wait,"""
    max_wait: PositiveDuration = 60.0
    """or the first of them for so long; a crash takes none of them, for they are sent again."""
    retention: Duration = 0.0
    """Files whose hour is past by more are deleted; 0: never."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.directory is None) == (not self.url):
            raise ValueError("give exactly one of directory, url")
        return self


class NatsSinkSettings(Section):
    """NATS JetStream (extra `nats`): many gateways feed one fleet of monitors."""

    servers: Annotated[tuple[str, ...], Field(min_length=1, max_length=16)] = ("nats://127.0.0.1:4222",)
    """URLs of the cluster's servers. Their `max_payload` must hold a frame: `prediction_log.max_batch_bytes`
    and some more."""
    stream: str = Field("PREDICTIONS", pattern=r"^[A-Za-z0-9_\-]+$")
    """JetStream stream; made if it is not there."""
    prefix: str = Field("predictions", pattern=r"^[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*$")
    """Subjects are `PREFIX.MODEL.PRODUCER`."""
    token: SecretSettings | None = None
    """Sent at connecting."""
    ca_file: Path | None = None
    """CAs to trust, PEM, for `tls://`."""
    max_pending: PositiveInt = 64
    """Frames sent and not acknowledged."""


class CloudEventsSinkSettings(Section):
    """CloudEvents over HTTP, as KServe's logger sends them."""

    url: Annotated[str, AfterValidator(check_url)]
    """Each batch is posted there as a request event and a response event."""
    source: str = "http://localhost:9081/"
    """`ce-source`."""
    namespace: str = "default"
    """`ce-namespace`."""
    component: str = "predictor"
    """`ce-component`."""
    endpoint: str = ""
    """`ce-endpoint`."""
    authorization: SecretSettings | None = None
    """Value of the header `Authorization`."""


class SinkSettings(Section):
    """Where every prediction goes; each sink gets all of them, and none waits for another."""

    spool: SpoolSettings | None = None
    """Unset: what a sink does not take while memory has room is dropped, and counted."""
    memory: ByteSize = Field(ByteSize(32 * MIB), ge=MIB)
    """Frames of each sink in memory until they are acknowledged; up to twice as much for a moment."""
    stream: StreamSinkSettings | None = None
    """A monitor."""
    parquet: ParquetSinkSettings | None = None
    """Parquet files."""
    nats: NatsSinkSettings | None = None
    """NATS JetStream."""
    cloudevents: CloudEventsSinkSettings | None = None
    """CloudEvents over HTTP."""
