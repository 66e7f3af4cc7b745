"""Requests to the endpoint by which an MLflow server hands out artifacts. Blocking."""

from __future__ import annotations

import json
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from gateway.core.registry import RangeUnsupported, RegistryError
from gateway.registry.mlflow.library import refused, transport_fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import requests

    from gateway.core.registry import RegistryFile
    from gateway.registry.mlflow.locations import Proxied

_ENDPOINT: Final = "/api/2.0/mlflow-artifacts/artifacts"
_MAX_LISTING_BYTES: Final = 16 << 20
_PIECE_BYTES: Final = 256 << 10
_PIECE_S: Final = 0.1
"""A piece is handed on after this long even when it is short, so that a slow server is seen to send."""
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of a request.

    Attributes:
        timeout_s: seconds until connected.
        read_timeout_s: seconds without a byte.
    """

    timeout_s: float
    read_timeout_s: float


class Downloads:
    """Gets the files of one version.

    Args:
        place: where they are.
        limits: how long requests may take.
    """

    def __init__(self, place: Proxied, limits: Limits) -> None:
        self._place = place
        self._limits = limits
        self.server = place.base.partition("://")[2]

    def listing(self, directory: str) -> Any:
        """Return what the server answers about a directory; empty for the version's own.

        Raises:
            RegistryError: step `fetch`.
        """
        title = f"the list of its files{f' in {directory}' if directory else ''}"
        params = {"path": "/".join(filter(None, (self._place.root, directory)))}
        body = Body(self._get("", title, params=params), title, self.server)
        content = bytearray()
        try:
            self._check_status(body.response, title)
            while piece := body.piece():
                content += piece
                if len(content) > _MAX_LISTING_BYTES:
                    raise _failed(f"{title} is longer than {_MAX_LISTING_BYTES} bytes", may_pass=False)
            return json.loads(content)
        except (ValueError, RecursionError) as exc:
            raise _failed(f"{title}: MLflow at {self.server} answered something that is not JSON") from exc
        finally:
            body.close()

    def is_steady(self, file: RegistryFile) -> bool:
        """Say whether ranges are given, and two of a file are taken from the same thing."""
        tags: list[str | None] = []
        for _ in range(2):
            response = self._get(self._url_path(file), file.path, {"Range": "bytes=0-0"})
            response.close()
            if response.status_code != 206:
                return False
            tags.append(response.headers.get("ETag"))
        return tags[0] == tags[1]

    def open(self, file: RegistryFile, start: int, stop: int | None) -> Body:
        """Ask for the bytes [start, stop) of a file; to its end when `stop` is None.

        Raises:
            RegistryError: step `fetch`; also when the file is no longer of the size listed.
            RangeUnsupported: the server gives files only from their beginning.
        """
        whole = start == 0 and stop in {None, file.size}
        headers = {} if whole else {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
        response = self._get(self._url_path(file), file.path, headers)
        try:
            self._check_file(response, file, start)
        except BaseException:
            response.close()
            raise
        return Body(response, file.path, self.server, None if stop is None else stop - start)

    def _check_file(self, response: requests.Response, file: RegistryFile, start: int) -> None:
        self._check_status(response, file.path)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise _failed(
                f"{file.path}: a proxy before MLflow at {self.server} compresses files; it must not"
            )
        total = response.headers.get("Content-Length", "")
        if response.status_code == 206:
            given = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if given is None or int(given[1]) != start:
                raise _failed(f"{file.path}: MLflow at {self.server} sent another range than was asked for")
            total = given[2]
        elif start:
            raise RangeUnsupported
        if file.size is not None and total.isdecimal() and int(total) != file.size:
            raise _changed(file)

    def _check_status(self, response: requests.Response, title: str) -> None:
        status = response.status_code
        if status in {200, 206}:
            return
        if status in {401, 403}:
            raise _failed(f"{title}: {refused(self.server)}")
        if status == 404:
            raise _failed(f"{title} is not among the artifacts of MLflow at {self.server}")
        if status == 416:
            raise _failed(f"{title} is shorter than when it was listed")
        raise _failed(f"{title}: MLflow at {self.server} answered {status}", may_pass=status >= 429)

    def _get(
        self,
        path: str,
        title: str,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> requests.Response:
        # MLflow's own function: it knows every way of authentication, and the settings of TLS.
        from mlflow.utils.credentials import get_default_host_creds  # noqa: PLC0415 - slow, and an extra
        from mlflow.utils.rest_utils import http_request  # noqa: PLC0415 - slow, and an extra

        with _told(title, self.server):
            response: requests.Response = http_request(  # type: ignore[no-untyped-call]  # MLflow's is not typed
                get_default_host_creds(self._place.base),  # type: ignore[no-untyped-call]  # likewise
                _ENDPOINT + path,
                "GET",
                max_retries=0,
                raise_on_status=False,
                timeout=(self._limits.timeout_s, self._limits.read_timeout_s),
                extra_headers={"Accept-Encoding": "identity", **(headers or {})},
                params=params,
                stream=True,
            )
        return response

    def _url_path(self, file: RegistryFile) -> str:
        return f"/{quote(f'{self._place.root}/{file.path}')}"


class Body:
    """The content of an answer, given piece by piece.

    Args:
        response: the answer; closed by `close`.
        title: what it holds, for messages.
        server: who gave it, for messages.
        length: bytes wanted of it; None for all.
    """

    def __init__(
        self, response: requests.Response, title: str, server: str, length: int | None = None
    ) -> None:
        self.response = response
        self._title = title
        self._server = server
        self._left = length

    def piece(self) -> bytes:
        """Return the next bytes; none at the end.

        Raises:
            RegistryError: step `fetch`; it ends early, or nothing comes.
        """
        gathered = bytearray()
        until = time.monotonic() + _PIECE_S
        with _told(self._title, self._server):
            while (room := self._room(len(gathered))) and time.monotonic() < until:
                read = self.response.raw.read1(room, decode_content=False)
                if not read:
                    break
                gathered += read
        if self._left is not None:
            if not gathered and self._left:
                raise _failed(f"{self._title}: MLflow at {self._server} sent {self._left} bytes too few")
            self._left -= len(gathered)
        return bytes(gathered)

    def close(self) -> None:
        """Give the connection up."""
        self.response.close()

    def _room(self, gathered: int) -> int:
        room = _PIECE_BYTES - gathered
        return room if self._left is None else min(room, self._left - gathered)


@contextmanager
def _told(title: str, server: str) -> Iterator[None]:
    """Turn what the HTTP client raises into a RegistryError."""
    import urllib3.exceptions as http  # noqa: PLC0415 - comes with MLflow
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - slow, and an extra

    try:
        yield
    except (MlflowException, http.HTTPError, OSError) as exc:
        raise _failed(f"{title}: MLflow at {server} {transport_fault(exc)}") from exc


def _changed(file: RegistryFile) -> RegistryError:
    return _failed(f"{file.path} is not of the size it was listed with: it has changed")


def _failed(message: str, *, may_pass: bool = True) -> RegistryError:
    return RegistryError("fetch", message, may_pass=may_pass)
