"""The `registries:`, `cache:` and `memory:` sections: where versions come from, and what they may take."""

from __future__ import annotations

import os
from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated, Literal

from pydantic import ByteSize, Field, PositiveInt, model_validator

from gateway.config.section import PositiveSeconds, Seconds, Section
from gateway.core.errors import ConfigError

MIB = 1 << 20
GIB = 1 << 30
DEFAULT_READ_TIMEOUT_S = 60.0


class SecretSettings(Section):
    """A secret, which never stands in the file itself: the name of a variable, or of a file that holds it."""

    env: str | None = Field(None, min_length=1)
    """Environment variable."""
    file: Path | None = None
    """File with the secret as its text, blanks around it left out; relative to the configuration file."""

    @model_validator(mode="after")
    def _one(self) -> SecretSettings:
        if (self.env is None) == (self.file is None):
            raise ValueError("give exactly one of env, file")
        return self

    def read(self) -> str:
        """Return the secret.

        Raises:
            ConfigError: it is not where the file says, or empty; the message never holds it.
        """
        place = f"environment variable {self.env}" if self.env else f"file {self.file}"
        try:
            text = os.environ.get(self.env, "") if self.env else self._text()
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"the secret in {place} cannot be read: {exc}") from exc
        if not text.strip():
            raise ConfigError(f"the secret in {place} is not set")
        return text.strip()

    def _text(self) -> str:
        return self.file.read_text(encoding="utf-8") if self.file else ""


class StoreAccessSettings(Section):
    """How an object store is reached (extra `object-store`)."""

    endpoint: str = ""
    """Where a store answers that is compatible with S3, GCS or Azure; empty: the cloud's own."""
    region: str = ""
    """Of the bucket; empty: the environment's."""
    account: str = ""
    """Storage account, for `az`; empty: the environment's."""
    credentials: dict[str, SecretSettings] = Field(default_factory=dict)
    """By name: `access_key_id`, `secret_access_key`, `session_token`, `service_account_key`, `account_key`,
    `sas_key`. Without any, what the environment has: variables, instance or workload identity."""
    anonymous: bool = False
    """Requests are not signed."""
    allow_http: bool = False
    """An endpoint without TLS may be used."""
    ca_file: Path | None = None
    """CAs to trust beside the system's, PEM."""


class ObjectStoreSettings(StoreAccessSettings):
    """Models in a bucket (extra `object-store`): `NAME/VERSION/model.onnx`, `NAME/aliases/ALIAS`."""

    url: str
    """`s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, or `https://host/path` of a WebDAV
    server. Sources that begin so, or lie deeper, are read with these settings."""
    completion_marker: str = ""
    """Name of a file that a version must have to be whole; empty: none."""


class DirectorySettings(Section):
    """Models in a directory, laid out as in a bucket; copied into the cache before they are loaded."""

    path: Path
    """The directory. Sources below it are read with these settings."""
    completion_marker: str = ""
    """Name of a file that a version must have to be whole; empty: none."""
    settle_s: PositiveSeconds = 0.5
    """A version is taken once its files have been at rest so long; longer than any pause in writing them."""


class MlflowSettings(Section):
    """Models registered with MLflow (extra `mlflow`).

    Credentials come from the environment: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or
    MLFLOW_TRACKING_TOKEN.
    """

    tracking_uri: str
    """The server's address, `https://mlflow.example.com`."""
    registry_uri: str = ""
    """The registry's address where it is another server; empty: the same."""
    max_versions: PositiveInt = 1000
    """Newest versions of a model that are looked at; older ones only where an alias names them."""
    artifact_hosts: tuple[str, ...] = ()
    """`host` or `host:port` of other MLflow servers that hand out artifacts and may be sent the same
    credentials."""
    artifact_store: StoreAccessSettings = Field(default_factory=StoreAccessSettings)
    """How the store is reached where the server keeps artifacts that it does not hand out itself."""
    webhook_secret: SecretSettings | None = None
    """The secret of MLflow's webhook, `/registries/NAME/webhook` on the administration port; unset: none."""


class SignatureSettings(Section):
    """Who must have signed the versions of a registry (OpenSSF model signing, extra `signing`)."""

    policy: Literal["require", "warn", "off"] = "off"
    """`require` refuses what is not signed as said here, `warn` serves it and says so, `off` never looks."""
    method: Literal["key", "certificate", "sigstore"] = "key"
    """With an elliptic-curve key, with a key that a certificate vouches for, or keyless by sigstore."""
    public_key: Path | None = None
    """Of method `key`: public key, PEM."""
    certificate_chain: tuple[Path, ...] = ()
    """Of method `certificate`: the authorities that are trusted, PEM."""
    identity: str = ""
    """Of method `sigstore`: the signer. Of method `certificate`, optional: a name in the certificate."""
    issuer: str = ""
    """Of method `sigstore`: the OpenID Connect issuer that vouches for the identity."""
    trust_config: Path | None = None
    """Of method `sigstore`: trust configuration; unset: the public service's, fetched at each check."""
    signature_file: str = "model.sig"
    """Where in a version the signature lies."""


class RegistrySettings(Section):
    """A registry; exactly one of object_store, directory and mlflow says of which kind."""

    object_store: ObjectStoreSettings | None = None
    """Models in a bucket."""
    directory: DirectorySettings | None = None
    """Models in a directory."""
    mlflow: MlflowSettings | None = None
    """Models registered with MLflow."""
    poll_interval_s: PositiveSeconds = 10.0
    """Each model is looked at so often, give or take a fifth; less often while the registry is down."""
    timeout_s: PositiveSeconds = 15.0
    """Time for one look at a model."""
    start_timeout_s: PositiveSeconds = 5.0
    """Time that the start waits for the registry; what it has not said by then is as the cache has it."""
    read_timeout_s: PositiveSeconds = DEFAULT_READ_TIMEOUT_S
    """A download from which no byte came for so long is tried again. An MLflow server that keeps its
    artifacts in a bucket sends nothing before it has all of a file: allow for the largest."""
    on_missing: Literal["keep", "unload"] = "keep"
    """What becomes of a version when the alias or version that named it is gone from the registry: `keep`
    serves it on and says so, `unload` withdraws it."""
    keep_previous: int = Field(2, ge=0)
    """Versions served before whose files stay in the cache for a rollback."""
    signatures: SignatureSettings = Field(default_factory=SignatureSettings)
    """Who must have signed."""

    @model_validator(mode="after")
    def _one_kind(self) -> RegistrySettings:
        if len([kind for kind in (self.object_store, self.directory, self.mlflow) if kind]) != 1:
            raise ValueError("give exactly one of object_store, directory, mlflow")
        return self


class CacheSettings(Section):
    """Files of versions fetched from registries. Gateways of one user on a host may share the directory."""

    directory: Path | None = None
    """Where; unset: `model-gateway` in $XDG_CACHE_HOME or ~/.cache."""
    max_bytes: ByteSize | None = Field(None, gt=0)
    """What is not needed goes, the longest unused first, until no more is kept; unset: no limit."""
    max_age_s: PositiveSeconds | None = 30 * 86_400.0
    """What is not needed goes when it was not used for so long; null: never."""
    keep_versions: PositiveInt | None = None
    """What is not needed of one model goes beyond so many versions; unset: no limit."""
    collect_interval_s: float = Field(3600.0, gt=0, le=43_200)
    """How often to look for what may go."""
    max_artifact_bytes: ByteSize = Field(ByteSize(64 * GIB), gt=0)
    """No version may be larger."""
    free_disk_reserve: ByteSize = ByteSize(GIB)
    """Nothing is fetched that would leave less free on the disk."""
    fetch_concurrency: PositiveInt = 4
    """Versions fetched or verified at once."""
    parallel_parts: PositiveInt | None = None
    """Parts of one version fetched at once; unset: as many as there are processors, 6 at most, since what
    arrives in memory at once delays requests."""
    part_bytes: ByteSize = Field(ByteSize(16 * MIB), ge=MIB)
    """Size of a part."""
    durable: bool = True
    """Files are flushed to the disk before they count as here, so that they outlive a loss of power."""


MemoryLimit = ByteSize | Literal["auto"]


class MemorySettings(Section):
    """What models may hold together; a load that would not fit is refused, with numbers."""

    limits: dict[str, Annotated[MemoryLimit, Field()]] = Field(default_factory=dict)
    """Most bytes by `cpu`, `cuda:N`, or `cuda` for each such device; `cpu: auto` is four fifths of what the
    machine or its container has. A device not named has no limit."""
    wait_s: Seconds = 10.0
    """Time that a load waits for what is being unloaded, or for a lazy model that is busy."""
    lazy_max_idle_s: PositiveSeconds | None = None
    """A lazy model is unloaded when nobody has asked for it this long; unset: only for its memory."""

    @model_validator(mode="after")
    def _known_devices(self) -> MemorySettings:
        for device, limit in self.limits.items():
            kind, _, ordinal = device.partition(":")
            if kind not in {"cpu", "cuda"} or (":" in device and (kind == "cpu" or not ordinal.isdecimal())):
                raise ValueError(f"'{device}' is no device: expected cpu, cuda or cuda:N")
            if limit == "auto" and kind != "cpu":
                raise ValueError(f"limit 'auto' is known for cpu alone, not for {device}")
        return self
