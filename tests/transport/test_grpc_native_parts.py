"""Parts of the native gRPC transport by themselves: timeouts, messages, statuses, deadlines, certificates."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import shutil
import ssl
import subprocess
import time
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls import RpcFailure, RpcService, RpcStatus
from gateway.transport.grpc_native import GrpcNativeServer
from gateway.transport.grpc_native_deadlines import Deadlines
from gateway.transport.grpc_native_head import timeout_s
from gateway.transport.grpc_native_messages import BufferBudget, MessageAssembly, inflate, write_prefix
from gateway.transport.grpc_native_status import percent_encoded, status_trailers
from gateway.transport.http2.limits import Limit
from gateway.transport.options import GrpcServerOptions, TlsOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("1H", 3600.0),
        ("2M", 120.0),
        ("3S", 3.0),
        ("4m", 0.004),
        ("5u", 0.000005),
        ("6n", 0.000000006),
        ("0n", 0.0),
        ("000S", 0.0),
        ("0000000000000007S", 7.0),
        (" 8 S", 8.0),
        ("9" * 13 + "S", None),
        ("S", None),
        ("1s", None),
        ("1 0S", None),
        (None, None),
    ],
)
def test_timeouts(header: str | None, seconds: float | None) -> None:
    """All units, and what the C core takes beyond the document."""
    assert timeout_s(header) == (None if seconds is None else pytest.approx(seconds))


@given(
    messages=st.lists(st.binary(max_size=300), max_size=6), cuts=st.lists(st.integers(0, 2000), max_size=8)
)
def test_messages_come_whole_however_they_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    """The budget has everything back in the end."""
    budget = BufferBudget(1000, lambda limit: None)
    assembly = MessageAssembly(budget, 300)
    wire = b"".join(write_prefix(0, len(message)) + message for message in messages)
    edges = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    found = []
    for start, end in itertools.pairwise(edges):
        position = start
        while position < end:
            message, position = assembly.next(wire, position, end)
            found += [] if message is None else [bytes(message.body)]
    assert found == messages
    assert not assembly.incomplete
    budget.take(1000)


def test_a_message_too_large_is_refused_before_it_comes() -> None:
    """Its prefix is enough."""
    fired: list[Limit] = []
    assembly = MessageAssembly(BufferBudget(1000, fired.append), 10)
    with pytest.raises(RpcFailure):
        assembly.next(write_prefix(0, 11), 0, 5)
    assert fired == [Limit.MESSAGE]


def test_incomplete_messages_share_a_budget() -> None:
    """The one that does not fit is refused, and what is dropped makes room."""
    fired: list[Limit] = []
    budget = BufferBudget(100, fired.append)
    one, two = MessageAssembly(budget, 1000), MessageAssembly(budget, 1000)
    one.next(write_prefix(0, 500) + b"x" * 80, 0, 85)
    with pytest.raises(RpcFailure):
        two.next(write_prefix(0, 500) + b"x" * 30, 0, 35)
    assert fired == [Limit.BUFFERED]
    one.drop()
    two.next(b"x" * 100, 0, 100)


@pytest.mark.parametrize(("encoding", "packed"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_inflating_stops_at_the_limit(encoding: str, packed: Callable[[bytes], bytes]) -> None:
    """The limit is the largest size allowed; broken and truncated data is refused."""
    body = packed(bytes(1000))
    assert inflate(body, encoding, 1000) == bytes(1000)
    for bad, most in ((body, 999), (body[:-9], 1000), (b"nonsense", 1000)):
        with pytest.raises(RpcFailure):
            inflate(bad, encoding, most)


@given(text=st.text(max_size=3000))
def test_status_messages_are_encoded_within_their_bound(text: str) -> None:
    """What is kept is a prefix, and only printable ASCII goes out."""
    encoded = percent_encoded(text)
    assert len(encoded) <= 4096
    assert all(" " <= character <= "~" for character in encoded)


@pytest.mark.parametrize("metadata", [("Upper", "1"), ("a", "line\nfeed"), ("grpc-status", "0"), ("", "1")])
def test_metadata_that_cannot_be_sent_is_refused(metadata: tuple[str, str]) -> None:
    """It would break the response, or lie about it."""
    with pytest.raises(ValueError, match="cannot be sent"):
        status_trailers(RpcStatus(5, "", (metadata,)))


class Waiting:
    """A call with a deadline."""

    def __init__(self) -> None:
        self.expired = asyncio.Event()

    def expire(self) -> None:
        self.expired.set()


async def test_deadlines_expire_in_order_and_forget_what_is_removed() -> None:
    """The earliest comes first although it was added last; one that is removed never comes."""
    deadlines, now_s = Deadlines(), time.monotonic()
    late, removed, early = Waiting(), Waiting(), Waiting()
    deadlines.add(now_s + 0.03, late)
    entry = deadlines.add(now_s + 0.01, removed)
    deadlines.add(now_s + 0.02, early)
    deadlines.add(now_s + 1e15, Waiting())
    deadlines.remove(entry)
    await early.expired.wait()
    await late.expired.wait()
    assert not removed.expired.is_set()
    deadlines.close()


async def test_removed_deadlines_take_no_room() -> None:
    """However far away they are."""
    deadlines = Deadlines()
    for _ in range(10_000):
        deadlines.remove(deadlines.add(time.monotonic() + 3600, Waiting()))
    assert len(deadlines._heap) < 1000
    deadlines.close()


async def test_new_certificates_serve_new_connections(certificates: TlsOptions, tmp_path: Path) -> None:
    """Files that change are read by the next handshake; ones that cannot be used leave those before."""
    certificate, key = tmp_path / "live.pem", tmp_path / "live.key"
    shutil.copy(certificates.certificate, certificate)
    shutil.copy(certificates.key, key)
    server = GrpcNativeServer(
        [RpcService("t")], GrpcServerOptions(port=0, tls=TlsOptions(certificate=certificate, key=key))
    )
    await server.start()
    before = await served_certificate(server.port)
    certificate.write_bytes(b"broken")
    assert await served_certificate(server.port) == before
    new_pair(certificate, key)
    assert await served_certificate(server.port) != before
    await server.stop(0.0)


async def served_certificate(port: int) -> Any:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return found


def new_pair(certificate: Path, key: Path) -> None:
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=new"
    )
    subprocess.run(
        [*command.split(), "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
