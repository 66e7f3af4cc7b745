"""`gateway monitor serve`: runs the monitor from start-up to a signal."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

import uvloop

from gateway.commands.failure import Exit
from gateway.config.monitor import load_monitor_config
from gateway.monitor.app import Monitor

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.config.monitor import MonitorConfig


def serve(file: Path, *, as_json: bool, end_with_input: bool) -> None:
    """Serve until SIGTERM or SIGINT, make a last checkpoint, and return.

    A second signal ends the process at once with exit code 1; gateways then send again what the last
    checkpoint does not hold.

    Args:
        file: the configuration file.
        as_json: print one JSON line on standard output when start-up is over.
        end_with_input: also end when standard input does.

    Raises:
        ConfigError: the file is wrong, a port or socket is taken, a certificate or secret cannot be read.
        StoreError: the database cannot be used.
    """
    config = load_monitor_config(file)
    uvloop.run(_serve(config, as_json=as_json, end_with_input=end_with_input))


async def _serve(config: MonitorConfig, *, as_json: bool, end_with_input: bool) -> None:
    stop = asyncio.Event()
    _stop_on_signals(stop)
    async with Monitor(config) as monitor:
        if end_with_input:
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _stop_at_end, stop)
        _announce(monitor, as_json=as_json)
        await stop.wait()


def _stop_at_end(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stop.set()


def _announce(monitor: Monitor, *, as_json: bool) -> None:
    if as_json:
        document = {"pages_url": monitor.pages_url, "ingest": list(monitor.ingest)}
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()
    sys.stderr.write(f"Monitor: {monitor.pages_url}  (log stream: {', '.join(monitor.ingest) or 'none'})\n")
    sys.stderr.flush()


def _stop_on_signals(stop: asyncio.Event) -> None:
    def on_signal() -> None:
        if stop.is_set():
            os._exit(Exit.FAILED)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
