"""The stream over TCP, with certificates of both sides."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import grpc
import pytest

from gateway.predlog.seams import SinkUnavailable
from gateway.predlog.stream.options import ClientTls, StreamOptions
from gateway.predlog.stream.sink import StreamSink
from gateway.transport.grpc_native_duplex import open_duplex
from tests.predlog.delivery.frames import EPOCH
from tests.predlog.delivery.monitor_server import MonitorServer
from tests.predlog.sink_contract import Acks, send_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return key and certificate of localhost, its own authority."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = f"{openssl} req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    extensions = ["-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *extensions, *files], check=True, capture_output=True)
    return key, certificate


@pytest.fixture
def server(pair: tuple[Path, Path]) -> Iterator[MonitorServer]:
    key, certificate = (path.read_bytes() for path in pair)
    credentials = grpc.ssl_server_credentials([(key, certificate)], certificate, require_client_auth=True)
    made = MonitorServer("127.0.0.1:0", credentials)
    made.start()
    yield made
    made.stop()


def sink(server: MonitorServer, tls: ClientTls) -> StreamSink:
    address = f"127.0.0.1:{server.port}"
    return StreamSink(
        StreamOptions(address=address, producer="gw", epoch=EPOCH, tls=tls, open_timeout_s=5.0), open_duplex
    )


def test_both_sides_are_known(server: MonitorServer, pair: tuple[Path, Path]) -> None:
    """With the gateway's own certificate and the monitor's name, frames arrive."""
    key, certificate = pair
    acks = Acks()
    with closing(sink(server, ClientTls(certificate, certificate, key, "localhost"))) as given:
        given.open(acks)
        send_all(given, range(1, 4))
        acks.wait_for(EPOCH, 3)


@pytest.mark.parametrize("fault", ["no certificate", "another name", "no file"])
def test_a_stranger_is_not_talked_to(server: MonitorServer, pair: tuple[Path, Path], fault: str) -> None:
    """Neither a gateway that the monitor does not know, nor a monitor of another name."""
    key, certificate = pair
    tls = {
        "no certificate": ClientTls(certificate, server_name="localhost"),
        "another name": ClientTls(certificate, certificate, key, "elsewhere"),
        "no file": ClientTls(certificate / "none"),
    }[fault]
    with closing(sink(server, tls)) as given, pytest.raises(SinkUnavailable):
        given.open(Acks())
    assert not server.rows
