"""The life of the serve command: what it prints and how signals end it, in processes of its own."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from gateway.commands.failure import CommandFailed, Exit
from gateway.commands.serve import check_addresses
from gateway.config.schema import GatewayConfig, PortSettings, ServerSettings

ROOT = Path(__file__).parents[2]


@contextmanager
def serving(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.commands.serving_script", *arguments]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(stream: IO[str] | None, text: str) -> str:
    assert stream is not None
    read = ""
    for line in stream:
        read += line
        if text in line:
            return read
    raise AssertionError(f"{text!r} never came, only:\n{read}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_gracefully(number: signal.Signals) -> None:
    """Plain progress lines and the announcement come first; the signal then frees everything, exit code 0."""
    with serving("graceful") as process:
        announced = read_until(process.stdout, "print(json.load")
        assert announced.startswith("digits version 1: ready after 0.50 s\nReady.\n")
        process.send_signal(number)
        stdout, stderr = process.communicate()
    assert process.returncode == Exit.OK
    assert number.name in stdout
    assert stderr == "freed\n"


def test_a_second_signal_stops_at_once() -> None:
    """While the drain is stuck the second signal ends the process with exit code 1, freeing nothing."""
    with serving("stuck") as process:
        read_until(process.stdout, "print(json.load")
        process.send_signal(signal.SIGTERM)
        read_until(process.stderr, "draining")
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate()
    assert process.returncode == Exit.FAILED
    assert "freed" not in stderr


def test_a_teardown_that_takes_too_long_is_given_up() -> None:
    """Native code that does not return holds the process no longer than allowed; it says so, exit code 1."""
    with serving("clinging") as process:
        read_until(process.stdout, "print(json.load")
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate()
    assert process.returncode == Exit.FAILED
    assert "a model still ran 0.05 s after the grace period: ending without it" in stdout
    assert "freed" not in stderr


def test_a_signal_while_models_load_is_obeyed() -> None:
    """Start-up need not be over: nothing is announced and the exit code is 0."""
    with serving("loading", "--ready-json") as process:
        read_until(process.stderr, "still loading")
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate()
    assert process.returncode == Exit.OK
    assert stdout == ""
    assert "freed" in stderr


def test_ready_json_is_the_only_line_on_standard_output() -> None:
    """Programs read one line; people read standard error."""
    with serving("graceful", "--ready-json") as process:
        line = read_until(process.stdout, "http_port")
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate()
    assert stdout == ""
    assert json.loads(line) == {
        "http_port": 1,
        "grpc_port": 2,
        "metrics_port": 3,
        "admin_port": 4,
        "ready": True,
        "models": [{"name": "digits", "version": 1, "state": "READY", "reason": ""}],
    }
    assert "Ready." in stderr


def config_of(host: str = "127.0.0.1", admin_host: str = "127.0.0.1", **ports: int) -> GatewayConfig:
    chosen = PortSettings(**{"http": 0, "grpc": 0, "metrics": 0, "admin": 0, **ports})
    return GatewayConfig(server=ServerSettings(host=host, admin_host=admin_host, ports=chosen))


@pytest.mark.parametrize("name", ["http", "grpc", "metrics", "admin"])
def test_each_taken_port_is_named(name: str) -> None:
    """The message names port, purpose and flag; SO_REUSEPORT on the other side does not hide it."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CommandFailed, match=rf"port {port} \({name}\) is already in use.*--{name}-port"):
            check_addresses(config_of(**{name: port}))


def test_free_ports_pass() -> None:
    """Ports picked by the system are not probed, and a port just freed can be bound again."""
    with socket.create_server(("127.0.0.1", 0)) as freed:
        port = freed.getsockname()[1]
    check_addresses(config_of(http=port))


def test_a_port_given_twice_is_named() -> None:
    """The two purposes of the port are named before either is bound."""
    with socket.create_server(("127.0.0.1", 0)) as freed:
        port = freed.getsockname()[1]
    with pytest.raises(CommandFailed, match=f"port {port} is given twice: for http and for metrics"):
        check_addresses(config_of(http=port, metrics=port))


def test_an_address_of_another_machine_names_the_flag() -> None:
    """192.0.2.0/24 is nobody's; which flag set it depends on the port."""
    with socket.create_server(("127.0.0.1", 0)) as freed:
        port = freed.getsockname()[1]
    with pytest.raises(CommandFailed, match=r"cannot bind http to 192\.0\.2\.1: .*--host"):
        check_addresses(config_of(host="192.0.2.1", http=port))
    with pytest.raises(CommandFailed, match=r"cannot bind admin to 192\.0\.2\.1: .*--admin-host"):
        check_addresses(config_of(admin_host="192.0.2.1", admin=port))
