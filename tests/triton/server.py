"""A real tritonserver for tests: a process that can be killed, frozen and started again on its ports."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias

from tests.servers.orphans import end_with_us

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Mode: TypeAlias = Literal["none", "explicit", "poll"]

ROOT: Final = Path(__file__).resolve().parents[2]
INSTALLED: Final = ROOT / "build" / "tritonserver"
_SERVER: Final = INSTALLED / "pytriton" / "tritonserver"
_LIBRARIES: Final = INSTALLED / "nvidia_pytriton.libs"
CONTROL: Final = "TRITON_TESTS_CONTROL"
"""Environment of the models: the file that switches faults on, of this endpoint alone."""
STARTS_WITHIN_S: Final = 60.0
STOPS_WITHIN_S: Final = 20.0
_ATTEMPTS: Final = 3
_BAD_LUCK: Final = ("Address already in use", "boost::interprocess::lock_exception")
"""What a start is worth another try for; the second ends a server whose models start slowly."""
_SHARED_MEMORY: Final = Path("/dev/shm")
_LEAST_PORT: Final = 20_000


class StartFailed(Exception):
    """The server did not become ready; the end of its log is in the message."""


def missing() -> str:
    """Return why no server can run here, empty if one can."""
    if not (INSTALLED / ".stamp").exists():
        return f"`make test` fetches {INSTALLED}"
    return ""


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that were free just now and that the kernel does not hand out itself.

    A server that is started again finds its own free, therefore.
    """
    first_of_kernel = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    held: dict[int, socket.socket] = {}
    try:
        while len(held) < count:
            port = secrets.randbelow(first_of_kernel - _LEAST_PORT) + _LEAST_PORT
            with suppress(OSError):
                held[port] = socket.create_server(("127.0.0.1", port))
        return list(held)
    finally:
        for listener in held.values():
            listener.close()


class TritonServer:
    """One endpoint. Made by `triton`; it keeps its ports, repository and log whenever it is started again.

    Attributes:
        repository: the model repository.
        log: what every start wrote, one after the other.
        control: the file that switches faults of its models on (`Faults` in `served/faults.py`).
    """

    def __init__(
        self,
        directory: Path,
        repository: Path,
        *,
        mode: Mode,
        load: Sequence[str],
        options: Mapping[str, str],
    ) -> None:
        self.repository = repository
        self.log = directory / "log"
        self.control = directory / "control.json"
        self._directory = directory
        self._mode = mode
        self._load = tuple(load)
        self._options = dict(options)
        self._region = f"triton_tests_{secrets.token_hex(8)}_"
        self._process: subprocess.Popen[bytes] | None = None
        self._choose_ports()

    @property
    def http(self) -> str:
        """Address of HTTP, without a scheme."""
        return f"127.0.0.1:{self.http_port}"

    @property
    def grpc(self) -> str:
        """Address of gRPC."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def running(self) -> bool:
        """Whether the process is there, frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process, which must have been started."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, wait: bool = True) -> Self:
        """Start it, on the same ports each time, and wait until it says that it is ready.

        Raises:
            StartFailed: it ended, or did not become ready.
        """
        assert not self.running, "it runs already"
        code = self._process.poll() if self._process is not None else None
        if code not in {None, 0, -signal.SIGKILL}:
            warnings.warn(f"it had ended with {code}: {self.said()[-2000:]}", stacklevel=2)
        self.kill()  # should it have ended by itself, its models may not have
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self._directory,
                env=self._environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end_with_us(self._process, leaves=str(_SHARED_MEMORY / f"{self._region}*"))
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Wait until it says that it is ready.

        Raises:
            StartFailed: it ended, or did not become ready.
        """
        hopeless_s = time.monotonic() + STARTS_WITHIN_S
        while not self.says("/v2/health/ready"):
            if not self.running or time.monotonic() > hopeless_s:
                self.kill()
                raise StartFailed(f"tritonserver did not become ready:\n{self.said()[-4000:]}")
            time.sleep(0.02)

    def wait_gone(self) -> None:
        """Wait until the process has ended by itself."""
        assert self._process is not None
        self._process.wait(STOPS_WITHIN_S)

    def says(self, path: str) -> bool:
        """Whether it answers a GET of this path with 200."""
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=STARTS_WITHIN_S) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.HTTPError):
            return False

    def said(self) -> str:
        """Return the log without its tables."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if not line.startswith(("+", "|")))

    def kill(self) -> None:
        """End it and its models at once, as a host that is gone; also when it is frozen or not running."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as an operator does: it finishes what it has."""
        self._end(signal.SIGTERM)

    def suspend(self) -> None:
        """Freeze it: connections stay, nothing is answered.

        Its models go on: frozen while they hold a lock, they would have Triton abort when it goes on.
        """
        os.kill(self.pid, signal.SIGSTOP)
        # Each thread goes on until the signal has reached it.
        while not all(_is_stopped(task) for task in Path(f"/proc/{self.pid}/task").iterdir()):
            time.sleep(0.001)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def move(self) -> None:
        """Take other ports, before a start."""
        assert not self.running
        self._choose_ports()

    def _choose_ports(self) -> None:
        self.http_port, self.grpc_port = free_ports(2)

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        if number is not signal.SIGKILL and process.poll() is None:
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOPS_WITHIN_S)
        with suppress(ProcessLookupError):  # its models may outlive it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for region in _SHARED_MEMORY.glob(f"{self._region}*"):
            region.unlink(missing_ok=True)

    def _command(self) -> list[str]:
        options = {
            "model-repository": str(self.repository),
            "backend-directory": str(_SERVER / "backends"),
            "backend-config": f"python,shm-region-prefix-name={self._region}",
            "model-control-mode": self._mode,
            "http-address": "127.0.0.1",
            "http-port": str(self.http_port),
            "grpc-address": "127.0.0.1",
            "grpc-port": str(self.grpc_port),
            "allow-metrics": "false",
            "exit-timeout-secs": "5",
            **self._options,
        }
        loads = [f"--load-model={name}" for name in self._load]
        return [
            str(_SERVER / "bin" / "tritonserver"),
            *(f"--{name}={value}" for name, value in options.items()),
            *loads,
        ]

    def _environment(self) -> dict[str, str]:
        # The stub is linked with libpython, and finds its packages through the python3 that is first in PATH.
        libraries = (str(_LIBRARIES), str(sysconfig.get_config_var("LIBDIR")))
        return {
            "PATH": os.pathsep.join((str(INSTALLED / "python" / "bin"), os.defpath)),
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            CONTROL: str(self.control),
        }


def _is_stopped(task: Path) -> bool:
    """Whether a thread stands still, or is gone."""
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0] in {"T", "X", "Z"}
    except (FileNotFoundError, ProcessLookupError):
        return True


@contextmanager
def triton(
    repository: Path,
    *,
    mode: Mode = "none",
    load: Sequence[str] = (),
    options: Mapping[str, str] | None = None,
    started: bool = True,
) -> Iterator[TritonServer]:
    """Run a server until the context is left, whatever state it is in then.

    Args:
        repository: its model repository; not written to.
        mode: its model control.
        load: models loaded at the start in mode explicit; `*` for all.
        options: further options of the command line, by name without dashes; they go before those here.
        started: False leaves the start to the caller.

    Raises:
        StartFailed: it did not become ready, also on other ports.
    """
    directory = Path(tempfile.mkdtemp(prefix="triton-"))
    server = TritonServer(directory, repository, mode=mode, load=load, options=options or {})
    try:
        if started:
            _start(server)
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory, ignore_errors=True)


def _start(server: TritonServer) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            server.start()
        except StartFailed:
            said = server.said()
            if attempt == _ATTEMPTS or not any(words in said for words in _BAD_LUCK):
                raise
            server.move()
        else:
            return
