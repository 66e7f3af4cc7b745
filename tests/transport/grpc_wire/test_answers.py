"""Answers that cannot be sent as they were meant: the call is answered all the same."""

from __future__ import annotations

import random
import resource
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.calls import RpcFailure
from gateway.transport.grpc_native_messages import deflate, inflate
from tests.transport.grpc_wire.frames import block, data, headers, message, open_call, request_fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.transport.grpc_wire.methods import Methods

MIB = 1 << 20
EXHAUSTED = 8
NOISE = random.Random(1).randbytes(MIB) * 64
"""It does not get smaller, and repeats itself too late for zlib to see."""
ACCEPTING = ("grpc-accept-encoding", "identity,gzip")


@contextmanager
def little_memory(spare_bytes: int) -> Iterator[None]:
    """Let the process have so much address space more than it has now."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + spare_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_messages_beyond_memory_are_refused(encoding: str) -> None:
    """Not as a fault of the server: a smaller one may do."""
    packed = deflate(bytes(64 * MIB), encoding)
    with little_memory(24 * MIB):
        with pytest.raises(RpcFailure) as deflating:
            deflate(NOISE, encoding)
        with pytest.raises(RpcFailure) as inflating:
            inflate(packed, encoding, 64 * MIB)
    assert deflating.value.status.code == inflating.value.status.code == EXHAUSTED


async def test_an_answer_that_memory_does_not_suffice_to_compress(
    guarded: Any, connect: Any, methods: Methods
) -> None:
    """The client is told, and so is the next one of something smaller."""
    wire = await connect(await guarded(response_compression="gzip"))
    wire.send(open_call(1, "Size", ACCEPTING) + data(1, message(b"100000"), end=True))
    assert (await wire.answer(1)).headers["grpc-encoding"] == "gzip"  # the thread is there from now on
    wire.send(open_call(3, "Hold", ACCEPTING) + data(3, message(), end=True))
    await methods.arrived.wait()
    with little_memory(24 * MIB):
        methods.calls[0].reply(NOISE)
        assert (await wire.answer(3)).grpc_status == EXHAUSTED
    wire.send(open_call(5, "Size", ACCEPTING) + data(5, message(b"100000"), end=True))
    assert (await wire.answer(5)).grpc_status == 0


@pytest.mark.parametrize("listed", ["none", "", ",", "identity", "none,,identity", "gzip,deflate"])
async def test_plain_answers_for_whatever_is_accepted(serve: Any, connect: Any, listed: str) -> None:
    """A server that compresses nothing does so for no client's words."""
    wire = await connect(await serve())
    fields = block(request_fields("Echo", ("grpc-accept-encoding", listed)))
    wire.send(headers(1, fields) + data(1, message(b"x"), end=True))
    answer = await wire.answer(1)
    assert (answer.grpc_status, answer.messages()) == (0, [b"x"])
    assert "grpc-encoding" not in answer.headers
