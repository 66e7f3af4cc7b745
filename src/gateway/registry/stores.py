"""Where models can be stored, by URL, and the settings of such a registry."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from gateway.core.errors import ConfigError
from gateway.registry.directory_registry import DirectoryOptions, DirectoryRegistry
from gateway.registry.stored_versions import fault_of_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.registry import ModelRegistry

SCHEMES: Final = ("s3", "gs", "az", "http", "https", "file")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLimits:
    """Bounds of what is asked of a store.

    Attributes:
        request_timeout_s: for each page of a listing and each small file, attempts included.
        read_timeout_s: for the beginning of a file, and for each 256 KiB of it.
        connect_timeout_s: for a connection.
        retries: attempts after the first, of one request, while these timeouts last.
        max_objects: a model with more files fails.
    """

    request_timeout_s: float = 15.0
    read_timeout_s: float = 30.0
    connect_timeout_s: float = 5.0
    retries: int = 2
    max_objects: int = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStoreOptions:
    """Settings of one object store, or directory, with models.

    Attributes:
        url: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, `https://host/path` of a
            WebDAV server, `file:///directory`, or a directory; models lie directly below it.
        endpoint: where an S3-compatible (or GCS-, Azure-compatible) server answers; empty for the cloud's.
        region: of the bucket; empty for the environment's.
        account: storage account, for `az`; empty for the environment's.
        credentials: by obstore's names: `access_key_id`, `secret_access_key`, `session_token`;
            `service_account_key`; `account_key`, `sas_key`. Without any, what the environment has: variables,
            instance or workload identity.
        anonymous: requests are not signed.
        allow_http: an endpoint without TLS may be used.
        ca_certificate: PEM text of CAs to trust beside the system's.
        completion_marker: the name of a file that a version must have to be whole; empty for none.
        settle_s: for a directory; as `SourceOptions.settle_s`.
        limits: bounds.
    """

    url: str
    endpoint: str = ""
    region: str = ""
    account: str = ""
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    anonymous: bool = False
    allow_http: bool = False
    ca_certificate: str = field(default="", repr=False)
    completion_marker: str = ""
    settle_s: float = 0.5
    limits: ReadLimits = ReadLimits()


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A URL taken apart.

    Attributes:
        scheme: one of `SCHEMES`.
        bucket: bucket or container; host and port of an HTTP server; empty for a directory.
        prefix: what lies between it and the models, without slashes at its ends; the path of a directory.
    """

    scheme: str
    bucket: str
    prefix: str

    def __str__(self) -> str:
        """Return it as a URL, without credentials."""
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")


def parse_url(url: str) -> StoreUrl:
    """Take apart the URL of a registry.

    Raises:
        ConfigError: it is none; the message says what is wrong.
    """
    if "://" not in url:
        return StoreUrl("file", "", url)
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise ConfigError(f"'{url}' is not a URL: {error}") from error
    if parts.username or parts.password:
        raise ConfigError("the URL of a registry must not hold credentials: set them apart")
    if parts.scheme not in SCHEMES:
        raise ConfigError(f"'{url}' begins with none of {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"}:
            raise ConfigError(f"'{url}' names a host: a directory is written with three slashes, file:///dir")
        return StoreUrl("file", "", unquote(parts.path))
    if parts.query or parts.fragment:
        raise ConfigError(
            f"the URL of a registry must not hold '?' or '#': '{parts.scheme}://{parts.netloc}'"
        )
    if not parts.netloc:
        raise ConfigError(f"'{url}' names no bucket, container or host")
    prefix = unquote(parts.path).strip("/")
    if prefix and (fault := fault_of_path(prefix)) is not None:
        raise ConfigError(f"the path of '{parts.scheme}://{parts.netloc}' cannot be used: {fault}")
    bucket = f"{parts.hostname}{port}" if parts.scheme in {"http", "https"} else parts.netloc
    return StoreUrl(parts.scheme, bucket, prefix)


def open_registry(name: str, options: ObjectStoreOptions) -> ModelRegistry:
    """Return the registry that the options describe; nothing is asked of it yet.

    Raises:
        ConfigError: the options are wrong, or what an object store needs is not installed.
    """
    url = parse_url(options.url)
    if url.scheme == "file":
        limits = DirectoryOptions(
            completion_marker=options.completion_marker,
            settle_s=options.settle_s,
            read_timeout_s=options.limits.read_timeout_s,
            max_files=options.limits.max_objects,
        )
        return DirectoryRegistry(name, Path(url.prefix), limits)
    try:
        from gateway.registry.object_store import ObjectStoreRegistry  # noqa: PLC0415  # obstore is an extra
    except ImportError as error:
        raise ConfigError(
            f"registry '{name}' at {url} needs obstore: pip install 'model-gateway[object-store]'"
        ) from error
    return ObjectStoreRegistry(name, options)
