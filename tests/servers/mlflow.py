"""A real MLflow server for tests: SQLite, artifacts served by itself, on loopback."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.orphans import end_with_us

ENVIRONMENT = Path(__file__).resolve().parents[2] / "build" / "mlflow-server"
STARTS_WITHIN_S = 90.0
STOPS_WITHIN_S = 20.0
_ATTEMPTS = 3
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


class StartFailed(Exception):
    """The server did not come up; its log is in the message."""


@dataclass(slots=True)
class MlflowServer:
    """A server that can be stopped and started again on the same port and data.

    Attributes:
        directory: its database and `artifacts` are below it.
        uri: `http://127.0.0.1:port`.
        destination: where it keeps artifacts; empty: a directory of its own.
        environment: further variables, as credentials of a bucket.
    """

    directory: Path
    uri: str = ""
    destination: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def artifacts(self) -> Path:
        """The directory with its artifacts."""
        return self.directory / "artifacts"

    def start(self) -> None:
        """Start it, on the port it had before if any.

        Raises:
            StartFailed: it did not come up.
        """
        port = int(self.uri.rpartition(":")[2]) if self.uri else _free_port()
        self.uri = f"http://127.0.0.1:{port}"
        log = self.directory / "log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [*self._command(), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
                cwd=self.directory,
                env={"PATH": os.environ["PATH"], "HOME": str(self.directory), **_QUIET, **self.environment},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end_with_us(self._process)
        self._wait(self._process, log)

    def stop(self) -> None:
        """Stop it with everything that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _command(self) -> list[str]:
        program = ENVIRONMENT / "bin" / "mlflow"
        if not program.is_file():
            raise StartFailed(f"there is no {program}: python scripts/mlflow_server_env.py")
        database = f"sqlite:///{self.directory / 'mlflow.db'}"
        destination = self.destination or str(self.artifacts)
        stores = ["--backend-store-uri", database, "--artifacts-destination", destination]
        return [str(program), "server", *stores, "--serve-artifacts"]

    def _wait(self, process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError) as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    tail = log.read_text(errors="replace")[-4000:]
                    raise StartFailed(f"MLflow did not come up ({error}):\n{tail}") from error
                time.sleep(0.1)


@contextmanager
def mlflow_server(destination: str = "", environment: dict[str, str] | None = None) -> Iterator[MlflowServer]:
    """Run a server until the context is left; its data goes with it.

    Args:
        destination: where it keeps artifacts, `s3://bucket/prefix`; empty: a directory of its own.
        environment: further variables for it.

    Raises:
        StartFailed: it did not come up, also on other ports.
    """
    directory = Path(tempfile.mkdtemp(prefix="mlflow-"))
    try:
        server = _started(directory, destination, environment or {})
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _started(directory: Path, destination: str, environment: dict[str, str]) -> MlflowServer:
    for attempt in range(1, _ATTEMPTS + 1):
        server = MlflowServer(directory, destination=destination, environment=environment)
        try:
            server.start()
        except StartFailed:  # another program may have taken the port that was free
            if attempt == _ATTEMPTS:
                raise
        else:
            return server
    raise AssertionError("unreachable")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
