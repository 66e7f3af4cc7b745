"""A small HTTP client of a running gateway, on the standard library, with errors a person can act on."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

from gateway.commands.failure import CommandFailed, Exit
from gateway.core.types import Datatype, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

_ERROR_TEXT_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gateway is.

    Attributes:
        secure: HTTPS.
        host: name or address, without brackets.
        port: TCP port.
        base_path: what precedes `/v2`, without a trailing slash.
    """

    secure: bool
    host: str
    port: int
    base_path: str = ""

    @property
    def url(self) -> str:
        """The address as a URL without a trailing slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}{self.base_path}"


def parse_address(url: str, default_port: int = 8000) -> Address:
    """Read `http://host:port/base`, `https://...` or plain `host:port`.

    Raises:
        CommandFailed: it is none of these.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or (443 if parts.scheme == "https" else default_port)
    except ValueError as exc:
        raise CommandFailed(f"not a URL: {url!r}: {exc}", Exit.USAGE) from exc
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise CommandFailed(f"not a URL: {url!r}: expected http://HOST:PORT", Exit.USAGE)
    return Address(parts.scheme == "https", parts.hostname, port, parts.path.rstrip("/"))


def unreachable(where: str, reason: str) -> CommandFailed:
    """Return the failure that says nobody answers, and what to do."""
    hint = "is the gateway running? Start one with `gateway serve ...`, or name another address with --url"
    return CommandFailed(f"no answer from {where}: {reason}; {hint}", Exit.UNREACHABLE)


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response: status, headers with lower-case names, whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON.

        Raises:
            CommandFailed: it is something else; whoever answered is no gateway.
        """
        try:
            return json.loads(self.body)
        except ValueError as exc:
            raise CommandFailed(f"expected JSON, got {self.body[:80]!r}: is this a gateway's port?") from exc


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a running gateway says of a model: name, version numbers as text, platform, tensors."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(slots=True)
class GatewayClient:
    """One keep-alive connection; used by one thread, closed by `with`.

    Attributes:
        address: of the gateway.
        timeout_s: for connecting and for each read.
        headers: sent with every request.
    """

    address: Address
    timeout_s: float = 60.0
    headers: Mapping[str, str] = field(default_factory=dict)
    _connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Self:
        """Return itself; the connection is made by the first request."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send one request and read its whole answer, whatever its status.

        Raises:
            CommandFailed: nobody answers, or not in HTTP.
        """
        try:
            connection = self._connected()
            connection.request(
                method, self.address.base_path + path, body or None, {**self.headers, **(headers or {})}
            )
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        except TimeoutError as exc:
            raise unreachable(self.address.url, f"nothing came within {self.timeout_s:g} s") from exc
        except OSError as exc:
            raise unreachable(self.address.url, _reason(exc)) from exc
        except http.client.HTTPException as exc:
            raise CommandFailed(
                f"{self.address.url} does not speak HTTP/1.1 ({type(exc).__name__}): is it the gRPC port?"
            ) from exc

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            kind = http.client.HTTPSConnection if self.address.secure else http.client.HTTPConnection
            self._connection = kind(self.address.host, self.address.port, timeout=self.timeout_s)
        return self._connection

    def json(self, method: str, path: str, body: bytes = b"") -> Any:
        """Send one request and return its JSON answer.

        Raises:
            CommandFailed: as `request`, and for any status but 200, with the server's own words.
        """
        reply = self.request(method, path, body)
        raise_for_status(reply)
        return reply.json()

    def metadata(self, model: str, version: str = "") -> ModelMetadata:
        """Return a model's metadata; raises as `json`."""
        return parse_metadata(self.json("GET", model_path(model, version)))


def raise_for_status(reply: Reply) -> None:
    """Raise CommandFailed with the server's message unless the status is 200."""
    if reply.status == http.HTTPStatus.OK:
        return
    text = reply.body[:_ERROR_TEXT_CHARACTERS].decode(errors="replace")
    try:
        text = json.loads(reply.body)["error"]
    except (ValueError, KeyError, TypeError):
        text = text or "no message"
    raise CommandFailed(f"the server answered {reply.status}: {text}")


def model_path(model: str, version: str = "") -> str:
    """Return the path of a model, or of one of its versions."""
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def parse_metadata(document: Mapping[str, Any]) -> ModelMetadata:
    """Read the answer of the metadata method.

    The protocol does not say which axis is the batch: it is taken to be the first where that axis is
    variable in every input that has axes.

    Raises:
        CommandFailed: fields are missing or unknown.
    """
    try:
        batched = all(t["shape"][0] < 0 for t in document["inputs"] if t["shape"])
        inputs, outputs = (
            tuple(_tensor_spec(t, batched=batched) for t in document[key]) for key in ("inputs", "outputs")
        )
        return ModelMetadata(
            document["name"], tuple(document.get("versions", ())), document["platform"], inputs, outputs
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise CommandFailed(f"the metadata of the model makes no sense: {exc!r}") from exc


def _tensor_spec(tensor: Mapping[str, Any], *, batched: bool) -> TensorSpec:
    shape = tuple(int(size) for size in tensor["shape"])
    return TensorSpec(tensor["name"], Datatype(tensor["datatype"]), shape, 0 if batched and shape else None)


def _reason(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror):
        return "the name does not resolve"
    return error.strerror or str(error)
