import socket
from typing import Any

import pytest

from gateway.commands.client import Address, GatewayClient, parse_address, parse_metadata
from gateway.commands.failure import CommandFailed, Exit


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://h:1", Address(False, "h", 1)),
        ("h:1", Address(False, "h", 1)),
        ("h", Address(False, "h", 8000)),
        ("http://h:1/base/", Address(False, "h", 1, "/base")),
        ("https://h", Address(True, "h", 443)),
        ("http://[::1]:5", Address(False, "::1", 5)),
    ],
)
def test_addresses(url: str, address: Address) -> None:
    """A scheme, a base path and brackets are understood, and a bare host gets the default port."""
    assert parse_address(url) == address


@pytest.mark.parametrize("url", ["ftp://h", "http://", "http://h:x", "http://h:99999", ""])
def test_wrong_addresses_are_usage_errors(url: str) -> None:
    """What is no address says so."""
    with pytest.raises(CommandFailed, match="not a URL") as caught:
        parse_address(url)
    assert caught.value.code is Exit.USAGE


def test_base_path_precedes_every_request(stub: Any) -> None:
    """A gateway behind a path prefix is reached under it."""
    stub.answer("GET", "/base/v2", {"name": "x"})
    with GatewayClient(parse_address(stub.url + "/base")) as client:
        assert client.json("GET", "/v2") == {"name": "x"}


def test_the_servers_words_are_passed_on(stub: Any) -> None:
    """An error answer becomes a failure with its status and message."""
    stub.answer("GET", "/v2/models/m", {"error": "Request for unknown model: 'm' is not found"}, 404)
    with (
        GatewayClient(stub.address) as client,
        pytest.raises(CommandFailed, match="404: Request for unknown model: 'm'"),
    ):
        client.metadata("m")


def test_nobody_there_asks_whether_it_runs() -> None:
    """A refused connection says how to start a gateway, with the exit code of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (
        GatewayClient(Address(False, "127.0.0.1", port)) as client,
        pytest.raises(CommandFailed, match=r"is the gateway running.*gateway serve") as caught,
    ):
        client.json("GET", "/v2")
    assert caught.value.code is Exit.UNREACHABLE


def test_another_protocol_is_recognised() -> None:
    """A port that answers something else than HTTP/1.1 is suspected to be gRPC."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = GatewayClient(Address(False, "127.0.0.1", server.getsockname()[1]))
        with client:
            client._connected().connect()
            peer, _ = server.accept()
            with peer:
                # The answer may wait in the socket before the request is sent.
                peer.sendall(b"\0\0\x12\4\0\0\0\0\0 settings\r\n")
                with pytest.raises(CommandFailed, match="is it the gRPC port"):
                    client.request("GET", "/v2")


@pytest.mark.parametrize(
    ("shapes", "axes"),
    [
        ([[-1, 4]], [0]),
        ([[-1, 4], [-1]], [0, 0]),
        ([[-1, 4], []], [0, None]),
        ([[-1, 4], [2, -1, 128]], [None, None]),
        ([[3]], [None]),
    ],
)
def test_batch_axis_is_guessed_from_the_shapes(shapes: list[list[int]], axes: list[int | None]) -> None:
    """The first axis is the batch only where every input with axes leaves it open."""
    inputs = [{"name": str(i), "datatype": "FP32", "shape": shape} for i, shape in enumerate(shapes)]
    metadata = parse_metadata({"name": "m", "platform": "p", "inputs": inputs, "outputs": []})
    assert [spec.batch_axis for spec in metadata.inputs] == axes


def test_foreign_metadata_is_refused() -> None:
    """An unknown datatype is a message, not a traceback."""
    tensor = {"name": "x", "datatype": "FP31", "shape": [1]}
    with pytest.raises(CommandFailed, match="makes no sense"):
        parse_metadata({"name": "m", "platform": "p", "inputs": [tensor], "outputs": []})
