"""Runs a peer's server: starts it on its cores, waits until it is ready, stops its whole process tree."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loadtests.peers.asking import NoAnswer, ask
from loadtests.peers.base import PeerUnavailable
from loadtests.peers.venvs import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadtests.peers.base import Place, WireRequest

_STOP_S: Final = 20.0
_KILL_S: Final = 10.0
_PROBE_S: Final = 5.0
_LOG_LINES: Final = 6
_MARK: Final = "LOADTESTS_PEER"


@dataclass(frozen=True, slots=True)
class Launch:
    """How a peer is started.

    Attributes:
        command: the server in the foreground, without taskset.
        ports: protocol -> port on 127.0.0.1.
        environment: added to this process's own.
    """

    command: Sequence[str]
    ports: Mapping[str, int]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A started server; satisfies `RunningPeer`.

    Attributes:
        process: the root of its tree.
        addresses: protocol -> host and port.
        probes: protocol -> a request that it must answer to be ready.
        log: where it writes.
    """

    process: subprocess.Popen[bytes]
    addresses: Mapping[str, tuple[str, int]]
    probes: Mapping[str, WireRequest]
    log: Path

    @property
    def pid(self) -> int:
        """The root of its process tree."""
        return self.process.pid

    def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Return when it has answered a request over each protocol.

        Raises:
            PeerUnavailable: it ended, or the time is up; the message holds the end of its log.
        """
        deadline_s = time.monotonic() + timeout_s
        for protocol, probe in self.probes.items():
            while (reason := self._refusal(protocol, probe)) is not None:
                if self._ended_within(0.1):
                    raise PeerUnavailable(f"it ended with {self.process.returncode}: {self._last_words()}")
                if time.monotonic() > deadline_s:
                    raise PeerUnavailable(
                        f"not ready over {protocol} after {timeout_s:.0f} s ({reason}): {self._last_words()}"
                    )

    def _refusal(self, protocol: str, probe: WireRequest) -> str | None:
        try:
            ask(protocol, self.addresses[protocol], probe, _PROBE_S)
        except NoAnswer as exc:
            return str(exc)
        return None

    def _ended_within(self, seconds: float) -> bool:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _last_words(self) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines()]
        return " | ".join([line for line in lines if line][-_LOG_LINES:])


@contextmanager
def running(launch: Launch, place: Place, probes: Mapping[str, WireRequest]) -> Iterator[RunningServer]:
    """Lend a started server; afterwards no process that descends from it is left, nor its temporary files.

    Raises:
        PeerUnavailable: its program cannot be started.
    """
    mark, log = uuid.uuid4().hex, place.workdir / "peer.log"
    # Not below the working directory: servers put Unix sockets here, whose paths have 107 characters at most.
    scratch = tempfile.mkdtemp(prefix="peer-")
    environment = clean_environment() | _one_thread(place) | {"TMPDIR": scratch, "HOME": scratch, _MARK: mark}
    process: subprocess.Popen[bytes] | None = None
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["taskset", "-c", place.cores, *launch.command],
                cwd=place.workdir,
                env=environment | dict(launch.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        addresses = {protocol: ("127.0.0.1", port) for protocol, port in launch.ports.items()}
        yield RunningServer(process, addresses, probes, log)
    except FileNotFoundError as exc:
        if process is not None:
            raise  # it came out of the block
        raise PeerUnavailable(f"{launch.command[0]} cannot be started: {exc}") from exc
    finally:
        if process is not None:
            _stop(process, mark)
        shutil.rmtree(scratch, ignore_errors=True)


def _one_thread(place: Place) -> dict[str, str]:
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    path = f"{place.venv / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    return dict.fromkeys(variables, "1") | {"PATH": path, "PYTHONUNBUFFERED": "1"}


def _stop(process: subprocess.Popen[bytes], mark: str) -> None:
    """Ask the root to end, then kill whatever of its tree is left, and return when all of it has ended."""
    tree: dict[int, int] = {}
    try:
        _watch(tree, mark)  # now: one that is ending has lost its mark, but may still hold its port
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        _kill(tree)
        while _watch(tree, mark):  # some may have been started meanwhile
            _kill(tree)
        process.wait()
    finally:
        for pidfd in tree.values():
            os.close(pidfd)


def _watch(tree: dict[int, int], mark: str) -> bool:
    """Open a pidfd for each living process of a mark; return whether there are any."""
    marked = _marked(mark)
    for pid in marked - tree.keys():
        with suppress(ProcessLookupError):
            tree[pid] = os.pidfd_open(pid)
    return bool(marked)


def _kill(tree: Mapping[int, int]) -> None:
    """Kill every process watched and return when all have ended, their files closed."""
    for pidfd in tree.values():
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    for pid, pidfd in tree.items():
        if not select.select([pidfd], [], [], _KILL_S)[0]:
            raise RuntimeError(f"process {pid} of a peer survives SIGKILL")


def _marked(mark: str) -> set[int]:
    """Return the processes that inherited a mark: also those that left the session, or lost their parent."""
    wanted = f"{_MARK}={mark}".encode()
    found = set()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in environ.read_bytes().split(b"\0"):
                found.add(int(environ.parent.name))
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return found
