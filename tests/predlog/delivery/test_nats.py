"""Frames into a real NATS server with JetStream."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections import Counter
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import nats
import nats.errors
import pytest

from gateway.predlog.lane_errors import FrameRefused
from gateway.predlog.rows import Frame
from gateway.predlog.sinks.nats import NatsOptions, NatsSink, subject
from gateway.predlog.wire import decode_frame
from tests.predlog.delivery.frames import EPOCH, accounting, frame
from tests.predlog.sink_contract import PATIENCE_S, Acks, SinkContract, send

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVER = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/bin")

pytestmark = pytest.mark.skipif(SERVER is None, reason="no nats-server on PATH")


class NatsRig:
    """A server on a port of its own choosing, the same over restarts, its store in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.start()

    def start(self) -> None:
        assert SERVER is not None
        ports = self._directory / "ports"
        ports.mkdir(exist_ok=True)
        for old in ports.iterdir():
            old.unlink()
        port = str(self.port) if self.port else "-1"
        command = [SERVER, "-a", "127.0.0.1", "-p", port, "-js", "-sd", str(self._directory / "store")]
        command += ["--ports_file_dir", str(ports), "-l", str(self._directory / "log")]
        self._process = subprocess.Popen(command)
        self.port = self._told_port(ports)
        self._wait_until_it_answers()

    def _told_port(self, ports: Path) -> int:
        if self.port:
            return self.port
        give_up_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up_s:
            for path in ports.iterdir():
                with suppress(ValueError, IndexError):
                    return int(path.read_text().split('"nats://127.0.0.1:')[1].split('"')[0])
            time.sleep(0.01)
        raise AssertionError("nats-server does not tell its port")

    def _wait_until_it_answers(self) -> None:
        give_up_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up_s:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                if connection.recv(4) == b"INFO":
                    return
            time.sleep(0.01)
        raise AssertionError("nats-server does not answer")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def options(self) -> NatsOptions:
        return NatsOptions(servers=(f"nats://127.0.0.1:{self.port}",), open_timeout_s=5.0)

    def sink(self) -> NatsSink:
        return NatsSink(self.options())

    def received(self) -> dict[tuple[int, int], int]:
        found = [decode_frame(data) for data in self.messages()]
        counted = Counter((f.epoch, f.sequence) for f in found if f.payload)
        assert set(counted.values()) <= {1}, "the server kept a frame twice"
        return {(f.epoch, f.sequence): f.rows for f in found if f.payload}

    def messages(self) -> list[bytes]:
        return asyncio.run(self._messages())

    async def _messages(self) -> list[bytes]:
        client = await nats.connect(f"nats://127.0.0.1:{self.port}")
        try:
            stream = client.jetstream()
            count = (await stream.stream_info("PREDICTIONS")).state.messages
            reader = await stream.pull_subscribe("predictions.>", stream="PREDICTIONS")
            found: list[bytes] = []
            while len(found) < count:
                found += [message.data for message in await reader.fetch(256, timeout=PATIENCE_S)]
            return found
        finally:
            await client.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[NatsRig]:
    made = NatsRig(tmp_path)
    yield made
    made.stop()


class TestContract(SinkContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> Iterator[NatsRig]:
        made = NatsRig(tmp_path)
        yield made
        made.stop()


def test_the_server_drops_what_is_sent_twice(rig: NatsRig) -> None:
    """A frame sent again over another connection is kept once; accounting never passes for a frame."""
    for _ in range(2):
        acks = Acks()
        with closing(rig.sink()) as sink:
            sink.open(acks)
            send(sink, frame(1))
            send(sink, accounting(1))
            sink.close()
        acks.wait_for(EPOCH, 1)
    found = [decode_frame(data) for data in rig.messages()]
    assert Counter(bool(f.payload) for f in found) == {True: 1, False: 2}


def test_a_frame_beyond_the_servers_limit_is_refused(rig: NatsRig) -> None:
    """It goes alone; the connection stands."""
    with closing(rig.sink()) as sink:
        acks = Acks()
        sink.open(acks)
        with pytest.raises(FrameRefused, match="max_payload"):
            sink.send(Frame(producer="gw", epoch=EPOCH, sequence=1, rows=1, data=bytes(2 << 20)))
        send(sink, frame(2))
        acks.wait_for(EPOCH, 2)


@pytest.mark.parametrize(
    ("model", "producer", "expected"),
    [
        ("loans", "gw-1", "p.loans.gw-1"),
        ("", "gw", "p._.gw"),
        ("_", "gw", "p.%5F.gw"),
        ("a.b *>", "host.example", "p.a%2Eb%20%2A%3E.host%2Eexample"),
        ("modèle", "gw", "p.mod%C3%A8le.gw"),
    ],
)
def test_subjects(model: str, producer: str, expected: str) -> None:
    """Names cannot leave their part of the subject."""
    assert subject("p", model, producer) == expected
