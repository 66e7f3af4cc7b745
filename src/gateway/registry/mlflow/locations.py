"""Where MLflow says that a version's files are, and by which way they can be had. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, urlsplit

from gateway.core.errors import ConfigError
from gateway.core.registry import RegistryError

if TYPE_CHECKING:
    from collections.abc import Collection

_STORES: Final = frozenset({"s3", "gs", "abfss", "abfs", "wasbs", "wasb"})
_REMOTE: Final = frozenset({"http", "https"})
_LOCAL: Final = frozenset({"sqlite", "file", ""})


@dataclass(frozen=True, slots=True)
class Tracking:
    """The tracking server.

    Attributes:
        uri: as MLflow's client takes it.
        shown: it as shown to people.
        is_remote: it is a server, not a database file or a directory of this machine.
    """

    uri: str
    shown: str
    is_remote: bool


@dataclass(frozen=True, slots=True)
class Proxied:
    """Files that an MLflow server hands out.

    Attributes:
        base: the server's URL, without a slash at its end.
        root: path of the version's directory among the server's artifacts.
    """

    base: str
    root: str


@dataclass(frozen=True, slots=True)
class Stored:
    """Files in an object store."""

    url: str


@dataclass(frozen=True, slots=True)
class Local:
    """Files in a directory of this machine."""

    directory: Path


def tracking(uri: str) -> Tracking:
    """Return what a `tracking_uri` means.

    Raises:
        ConfigError: it is none that can be served from, or holds credentials; they are not repeated.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise ConfigError("tracking_uri is not a URL") from None
    if parts.scheme not in _REMOTE | _LOCAL or (not parts.scheme and not uri.startswith("/")):
        raise ConfigError(
            f"tracking_uri '{parts.scheme}:...': expected the address of an MLflow server, "
            "https://mlflow.example.com, or of a local one's database, sqlite:////directory/mlflow.db"
        )
    if parts.scheme not in _REMOTE:
        return Tracking(uri, uri if parts.scheme else f"file://{quote(uri)}", is_remote=False)
    if "@" in parts.netloc or parts.query or parts.fragment or not parts.hostname:
        raise ConfigError(
            f"tracking_uri '{parts.scheme}://...': expected a host and perhaps a path; credentials belong in "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    bare = f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"
    return Tracking(bare, bare.partition("://")[2], is_remote=True)


def locate(uri: str, server: Tracking, artifact_hosts: Collection[str]) -> Proxied | Stored | Local:
    """Return how the files at an artifact URI can be had.

    Args:
        uri: as `get_model_version_download_uri` gives it. Whoever may register a version decides it, so it
            must not make the gateway send its credentials anywhere, nor read its own disk.
        server: the tracking server.
        artifact_hosts: `host` or `host:port` of further servers that may be sent the same credentials.

    Raises:
        RegistryError: step `fetch`, not passing; the message says what to change in MLflow.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise _out_of_reach("the address of its files is not a URL") from None
    if parts.scheme == "mlflow-artifacts":
        return _proxied(uri, server, artifact_hosts)
    if parts.scheme in _STORES and parts.netloc:
        return Stored(uri)
    if parts.scheme in {"file", ""}:
        return _local(uri, server)
    raise _out_of_reach(
        f"its files are at '{parts.scheme}:...', which cannot be read: expected artifacts that the MLflow "
        "server hands out (mlflow-artifacts:), or s3:, gs:, abfss:"
    )


def _proxied(uri: str, server: Tracking, artifact_hosts: Collection[str]) -> Proxied:
    # Not urlsplit: MLflow takes the path as it is, '#', '?' and '%' included.
    rest = uri.partition(":")[2]
    netloc, path = "", rest
    if rest.startswith("//"):
        netloc, _, path = rest[2:].partition("/")
    root = path.strip("/")
    if not server.is_remote:
        raise _out_of_reach("its files are at an MLflow server, and tracking_uri names none")
    ours = urlsplit(server.uri)
    if netloc and netloc.lower() not in {ours.netloc, *(host.lower() for host in artifact_hosts)}:
        raise _out_of_reach(
            f"its files are at the server '{netloc[:200]}', not at {ours.netloc}: if that one may have the "
            "same credentials, name it in artifact_hosts"
        )
    if any(part in {"", ".", ".."} for part in root.split("/")):
        raise _out_of_reach("the path of its files has empty parts, '.' or '..'")
    return Proxied(f"{ours.scheme}://{netloc or ours.netloc}{ours.path}", root)


def _local(uri: str, server: Tracking) -> Local:
    if server.is_remote:
        raise _out_of_reach(
            f"its files are in a directory of the MLflow server at {server.shown}, which does not hand them "
            "out: start it with --serve-artifacts and --artifacts-destination, and register the model anew"
        )
    parts = urlsplit(uri)
    path = unquote(parts.path) if parts.scheme else uri
    if not path.startswith("/") or parts.netloc not in {"", "localhost"}:
        raise _out_of_reach("its files are in a directory whose path is not absolute")
    return Local(Path(path))


def _out_of_reach(message: str) -> RegistryError:
    return RegistryError("fetch", message, may_pass=False)
