"""Runs the gateway as a process of its own: start, signals, end, and what the kernel says it holds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

Settings: TypeAlias = "dict[str, Any]"  # a configuration file's sections, as JSON has them

_ANY_PORTS: Final = {"http": 0, "grpc": 0, "metrics": 0, "admin": 0}
_KIB: Final = 1024
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


def settings(repository: Path, mode: str = "none", **server: Any) -> Settings:
    """Return a configuration that serves `repository` on free ports; `server` overrides its section."""
    return {
        "server": {"ports": _ANY_PORTS, **server},
        "repository": {"path": str(repository), "mode": mode}
        | ({"load_at_start": ["*"]} if mode == "explicit" else {}),
    }


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process holds.

    Attributes:
        rss_bytes: resident memory now.
        peak_bytes: most resident memory since the start or `GatewayProcess.reset_peak`.
        fds: open file descriptors.
        threads: threads.
    """

    rss_bytes: int
    peak_bytes: int
    fds: int
    threads: int


class _Lines:
    """The lines of a stream, read by a thread so that the writer never waits, and awaited by others."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, args=(process,), name="gateway-stderr")
        self._thread.start()

    def wait_for(self, text: str, timeout_s: float) -> str:
        """Return the first line that holds `text`.

        Raises:
            RuntimeError: the stream ended, or the time was up, without it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._find(text) is not None, timeout_s)
            found = self._find(text)
        if found is None:
            raise RuntimeError(f"the gateway never said {text!r}, only:\n{self.text()}")
        return found

    def text(self) -> str:
        """Return what was written so far."""
        return "".join(self._lines)

    def join(self) -> None:
        """Wait for the stream's end."""
        self._thread.join()

    def _find(self, text: str) -> str | None:
        return next((line for line in self._lines if text in line), None)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class GatewayProcess:
    """`gateway serve --ready-json` in a process of its own; entering it waits until it is ready.

    Leaving it kills whatever is left of it.

    Args:
        config: contents of its configuration file.
        directory: where that file is written.
        environment: further variables of its environment.
        core: the core it is kept on; None: wherever this process may run.
    """

    _stdin: ClassVar[int | None] = None
    """Its standard input, as `subprocess.Popen` takes it."""

    def __init__(
        self,
        config: Mapping[str, Any],
        directory: Path,
        environment: Mapping[str, str] = _NOTHING,
        core: int | None = None,
    ) -> None:
        self._config = config
        self._pinned = [] if core is None else ["taskset", "-c", str(core)]
        self._environment = environment
        self._directory = directory
        self.ready: Mapping[str, Any] = {}

    def __enter__(self) -> Self:
        path = self._directory / "gateway.yaml"
        path.write_text(json.dumps(self._config))  # JSON is YAML
        command = [*self._pinned, sys.executable, "-m", *self._program(str(path))]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("GATEWAY_")}
        environment = {**inherited, **self._environment}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=self._stdin, stdout=pipe, stderr=pipe, text=True, env=environment
        )
        self._stderr = _Lines(self._process)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.__exit__(None, None, None)
            raise RuntimeError(f"the gateway did not start:\n{self.log}")
        self.ready = json.loads(line)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._stderr.join()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _program(self, config: str) -> list[str]:
        """Return the module that is run, and its arguments."""
        return ["gateway", "serve", "--config", config, "--ready-json"]

    @property
    def mode(self) -> str:
        """Its repository's mode."""
        return str(self._config["repository"]["mode"])

    @property
    def http_port(self) -> int:
        """Port of inference over HTTP."""
        return int(self.ready["http_port"])

    @property
    def grpc_port(self) -> int:
        """Port of inference over gRPC."""
        return int(self.ready["grpc_port"])

    @property
    def metrics_port(self) -> int:
        """Port of the metrics page."""
        return int(self.ready["metrics_port"])

    @property
    def log(self) -> str:
        """What it wrote on standard error so far."""
        return self._stderr.text()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def wait_for_log(self, text: str, timeout_s: float = 60.0) -> str:
        """Return the first line on standard error that holds `text`; see `_Lines.wait_for`."""
        return self._stderr.wait_for(text, timeout_s)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def wait(self, timeout_s: float = 60.0) -> int:
        """Wait for its end and return the exit code; raises TimeoutExpired."""
        return self._process.wait(timeout_s)

    async def ended(self, timeout_s: float = 60.0) -> int:
        """Wait likewise beside a running event loop."""
        return await asyncio.to_thread(self.wait, timeout_s)

    def usage(self) -> Usage:
        """Return what it holds now."""
        proc = Path("/proc") / str(self._process.pid)
        fields = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        return Usage(
            rss_bytes=int(fields["VmRSS"].split()[0]) * _KIB,
            peak_bytes=int(fields["VmHWM"].split()[0]) * _KIB,
            fds=len(list((proc / "fd").iterdir())),
            threads=int(fields["Threads"]),
        )

    def reset_peak(self) -> None:
        """Let `Usage.peak_bytes` begin again (proc(5), clear_refs)."""
        (Path("/proc") / str(self._process.pid) / "clear_refs").write_text("5")
