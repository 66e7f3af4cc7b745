"""The captured header blocks of real clients, repeated with other values, read by another decoder."""

import re

import pytest
from hpack import Decoder, Encoder

from loadtests import captured
from loadtests.hpack_blocks import NoCycle, Slot, Templates, templates
from loadtests.replay.grpc_calls import HeaderBlocks

CLIENTS = ("grpcio", "grpc-js", "grpc-go")
TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00")
TIMEOUT = re.compile(r"[1-9]\d*[HMSmun]")


def decoded(client: str, name: str, count: int) -> list[dict[str, str]]:
    """Headers of so many requests on one connection, as the `hpack` library reads them."""
    blocks, decoder = HeaderBlocks(captured.load(client, name).templates), Decoder()
    found, position = [], 0
    for number in range(count):
        block = blocks.encode(position, number)
        found.append({k.decode(): v.decode() for k, v in decoder.decode(block, raw=True)})
        position = blocks.after(position)
    return found


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("name", ["plain", "deadlines", "traceparent", "deadlines+traceparent"])
def test_every_request_says_what_the_client_said(client: str, name: str) -> None:
    """Over several cycles: the same fields, deadlines and trace contexts well formed and new."""
    requests = decoded(client, name, 1000)
    for request in requests:
        assert request[":path"] == captured.UNARY_PATH
        assert request["content-type"] == "application/grpc"
        assert request["te"] == "trailers"
        assert request["user-agent"] == requests[0]["user-agent"]
        assert ("grpc-timeout" in request) == ("deadlines" in name or client == "grpc-go")  # k6 has a default
        assert ("traceparent" in request) == ("traceparent" in name)
        assert TIMEOUT.fullmatch(request.get("grpc-timeout", "1S"))
    if "traceparent" in name:
        contexts = [request["traceparent"] for request in requests]
        assert len(set(contexts)) == len(contexts)
        assert all(map(TRACEPARENT.fullmatch, contexts))
    if "deadlines" in name:
        assert len({request["grpc-timeout"] for request in requests}) > 50


@pytest.mark.parametrize("client", CLIENTS)
def test_a_stream_opens_with_its_own_path(client: str) -> None:
    """The one block of a stream's capture."""
    assert decoded(client, "stream", 1)[0][":path"] == captured.STREAM_PATH


@pytest.mark.parametrize("client", CLIENTS)
def test_openings_are_preface_and_settings(client: str) -> None:
    """What a server needs before the first request, and no acknowledgement of what it has not said."""
    opening = captured.load(client, "plain").opening
    assert opening.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert opening[24 + 3 : 24 + 5] == b"\x04\x00"


def test_blocks_that_index_what_varies_come_back_to_a_table_they_had() -> None:
    """An encoder that puts everything into its table evicts and starts over: that is the cycle."""
    encoder = Encoder()
    blocks = [
        encoder.encode([(":path", "/x"), ("traceparent", f"00-{n:032x}-{n:016x}-00")]) for n in range(200)
    ]
    found = templates(blocks)
    cycle = found.blocks[found.cycle :]
    assert 0 < len(cycle) <= 100
    assert all(any(isinstance(part, Slot) for part in block) for block in cycle)


def test_no_cycle_is_an_error() -> None:
    """A header that grows with each request never leaves the table as it was."""
    encoder = Encoder()
    blocks = [encoder.encode([("x-count", "n" * count)]) for count in range(1, 20)]
    with pytest.raises(NoCycle, match="19 blocks"):
        templates(blocks)


def test_values_of_other_lengths_leave_another_table() -> None:
    """What is evicted depends on them, so that tables with as many entries are not the same."""
    encoder = Encoder()
    blocks = [encoder.encode([("grpc-timeout", "1" * length + "S")]) for length in range(100, 400)]
    with pytest.raises(NoCycle):
        templates(blocks)


def test_after_the_last_block_comes_the_first_of_the_cycle() -> None:
    """Not the first of the connection, which is never sent twice."""
    blocks = HeaderBlocks(Templates(((b"a",), (b"b",), (b"c",)), 1))
    position, sent = 0, b""
    for number in range(6):
        sent += blocks.encode(position, number)
        position = blocks.after(position)
    assert sent == b"abcbcb"
