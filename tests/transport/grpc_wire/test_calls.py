"""What grpcio clients see of both transports: unary calls, their facts, statuses, cancellation, deadlines."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from gateway.core.calls import RpcStatus
from tests.transport.grpc_wire.methods import NAMED, SERVICE
from tests.transport.grpc_wire.servers import NO_LIMITS, OWN_CONNECTION, call, failure

if TYPE_CHECKING:
    from tests.transport.grpc_wire.methods import Methods

MIB = 1 << 20
CODES = {code.value[0]: code for code in grpc.StatusCode}


@pytest.mark.parametrize("method", ["Echo", "Unary"])
@pytest.mark.parametrize("message", [b"", b"x", b"y" * 3_000_000, bytes(10 * MIB)], ids=len)
async def test_a_message_comes_back(start: Any, method: str, message: bytes) -> None:
    """Messages are bytes to the transport, of any size within the limit."""
    _, channel = await start()
    assert await call(channel, method, message) == message


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 70_000, 3 * MIB])
async def test_an_answer_may_have_any_size(start: Any, size: int) -> None:
    """However small the request."""
    _, channel = await start()
    assert await call(channel, "Size", b"%d" % size) == bytes(size)


async def test_the_synchronous_client_is_served(serve: Any) -> None:
    """The same library without asyncio: several calls on one connection and a connection for each."""
    server = await serve()

    def converse() -> None:
        for options in (NO_LIMITS, OWN_CONNECTION):
            with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
                echo: Any = channel.unary_unary(f"/{SERVICE}/Echo")
                for size in (0, 1, 100, 10 * MIB):
                    assert echo(bytes(size), timeout=60) == bytes(size)
                stream: Any = channel.stream_stream(f"/{SERVICE}/Stream")
                assert list(stream(iter([b"a", b"b"]), timeout=60)) == [b"re:a", b"re:b", b"end"]

    await asyncio.to_thread(converse)


async def test_a_call_carries_its_facts(start: Any, methods: Methods) -> None:
    """Metadata is joined text without binary entries, the deadline monotonic time; trailers go back."""
    _, channel = await start()
    metadata = (("a", "1"), ("a", "2"), ("b-bin", b"\x00"), ("c", " !~"), ("empty", ""))
    reply = call(channel, "Echo", b"x", metadata=metadata, timeout=600)
    assert await reply == b"x"
    assert ("trailer", "value") in tuple(await reply.trailing_metadata())
    facts = methods.facts
    assert {name: facts["metadata"][name] for name in ("a", "empty")} == {"a": "1, 2", "empty": ""}
    assert facts["metadata"]["c"].strip() == "!~"
    assert "b-bin" not in facts["metadata"]
    # The C core rounds the grpc-timeout it sends up: to whole seconds here, to ten above 1,000 s.
    assert 500 < facts["deadline_s"] - facts["arrived_s"] <= 601
    assert "127.0.0.1" in facts["peer"]


async def test_transports_agree_on_metadata(start: Any, methods: Methods) -> None:
    """The names a method sees are the client's own and its library's; none of HTTP/2's or gRPC's."""
    _, channel = await start()
    await call(channel, "Echo", metadata=(("mine", "1"),), timeout=60)
    assert set(methods.facts["metadata"]) == {"mine", "user-agent"}


async def test_metadata_may_be_large_and_many(start: Any, methods: Methods) -> None:
    """As long as the limit allows, in header blocks of several frames; again and again, and changing."""
    _, channel = await start(max_metadata_bytes=60_000)
    for number in range(4):
        sent = [(f"name-{i}", f"{number}" * (i * 37 % 500)) for i in range(100)]
        await call(channel, "Echo", metadata=sent)
        seen = methods.facts["metadata"]
        assert {name: seen[name] for name, _ in sent} == dict(sent)


async def test_a_call_without_deadline_has_none(start: Any, methods: Methods) -> None:
    """No deadline is None, not a far one."""
    _, channel = await start()
    await call(channel, "Echo")
    assert methods.facts["deadline_s"] is None


async def test_each_call_has_its_own_deadline(start: Any, methods: Methods) -> None:
    """Otherwise equal calls differ in it."""
    _, channel = await start()
    for timeout_s in (100, 1000, None, 5000, 100):
        await call(channel, "Echo", b"same", timeout=timeout_s)
        facts = methods.facts
        if timeout_s is None:
            assert facts["deadline_s"] is None
        else:
            # The C core rounds up to two digits or so.
            assert 0.9 * timeout_s < facts["deadline_s"] - facts["arrived_s"] <= 1.05 * timeout_s


async def test_only_the_first_answer_counts(start: Any) -> None:
    """Later answers are ignored."""
    _, channel = await start()
    assert await call(channel, "Twice") == b"first"


async def test_trailers_go_back(start: Any) -> None:
    """Several of one name, and text of every printable character."""
    _, channel = await start()
    sent = [("a", "1"), ("a", "2"), ("printable", "".join(map(chr, range(0x21, 0x7F)))), ("long", "x" * 3000)]
    reply = call(channel, "Trailers", json.dumps(sent).encode())
    assert await reply == b""
    assert [pair for pair in tuple(await reply.trailing_metadata()) if pair in sent] == sent


@pytest.mark.parametrize("method", ["Fail", "UnaryFail"])
async def test_a_failure_arrives_with_its_status(start: Any, method: str) -> None:
    """Code, message of any characters, and metadata arrive as given."""
    _, channel = await start()
    error = await failure(call(channel, method))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, NAMED.message)
    assert ("retry", "no") in tuple(error.trailing_metadata())


@pytest.mark.parametrize("code", range(1, 17))
async def test_every_code_arrives(start: Any, code: int) -> None:
    """The specification's sixteen."""
    _, channel = await start()
    error = await failure(call(channel, "Fail", b"text", metadata=(("code", str(code)),)))
    assert (error.code(), error.details()) == (CODES[code], "text")


@pytest.mark.parametrize("code", [17, 99, -1])
async def test_a_code_nobody_knows_is_unknown(start: Any, code: int) -> None:
    """Nothing outside the specification goes out."""
    _, channel = await start()
    error = await failure(call(channel, "Fail", b"text", metadata=(("code", str(code)),)))
    assert error.code() is grpc.StatusCode.UNKNOWN


MESSAGES = [
    "plain",
    "100%",
    "%41%zz%",
    " spaces ",
    "tab\tline\nreturn\rnul\x00del\x7f",
    "\u00e4\u00f6\u00fc \u4f60\u597d \U0001f600",
    "".join(map(chr, range(256))),
]


@pytest.mark.parametrize("text", MESSAGES, ids=range(len(MESSAGES)))
async def test_a_message_may_hold_any_characters(start: Any, text: str) -> None:
    """Status messages are percent-encoded on the way."""
    _, channel = await start()
    assert (await failure(call(channel, "Fail", text.encode()))).details() == text


async def test_a_lone_surrogate_does_no_harm(start: Any, methods: Methods) -> None:
    """Text that UTF-8 cannot hold still arrives as some text with its code."""
    _, channel = await start()
    pending = call(channel, "Hold")
    await methods.arrived.wait()
    methods.calls[0].fail(RpcStatus(5, "a\ud800b"))
    error = await failure(pending)
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "a?b")


@pytest.mark.parametrize("text", ["a" * 100_000, "\u00e4" * 100_000, "%\n" * 50_000], ids=range(3))
async def test_a_long_status_message_is_cut(start: Any, text: str) -> None:
    """A message beyond what clients accept as metadata is cut and keeps its code."""
    _, channel = await start()
    error = await failure(call(channel, "Fail", text.encode()))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    details = error.details()
    assert details
    assert len(details) > 300
    assert text.startswith(details)


@pytest.mark.parametrize("method", ["Raise", "UnaryRaise"])
async def test_an_unexpected_exception_is_neutral(start: Any, method: str) -> None:
    """The client learns nothing of what was raised, and the next call succeeds."""
    _, channel = await start()
    error = await failure(call(channel, method))
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert await call(channel, "Echo", b"next") == b"next"


@pytest.mark.parametrize("path", ["/test.Echo/Nothing", "/test.Nothing/Echo", "/x", "/test.Echo/", "/a/b/c"])
async def test_an_unknown_method_is_unimplemented(start: Any, path: str) -> None:
    """Methods and services nobody has are answered as the specification says, with a message and without."""
    _, channel = await start()
    for message in (b"", b"x", bytes(MIB)):
        error = await failure(channel.unary_unary(path)(message))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert await call(channel, "Echo", b"next") == b"next"


async def test_many_calls_share_a_connection(start: Any, transport: str) -> None:
    """More than the server takes at once; the rest waits in the client, and each gets its own answer."""
    # The C core was seen to refuse streams of a client that had kept to its limit.
    _, channel = await start(max_concurrent_streams=None if transport == "grpcio" else 50)
    await call(channel, "Echo")  # the client knows the limit when it has seen the server's SETTINGS
    payloads = [b"%d" % number * (number % 700) for number in range(1000)]
    assert await asyncio.gather(*(call(channel, "Echo", payload) for payload in payloads)) == payloads


async def test_answers_may_come_in_any_order(start: Any, methods: Methods) -> None:
    """Each finds its call."""
    _, channel = await start()
    pending = [call(channel, "Hold", b"%d" % number) for number in range(60)]
    waiting = [asyncio.ensure_future(one) for one in pending]
    while len(methods.calls) < 60:
        methods.arrived.clear()
        await methods.arrived.wait()
    for held in reversed(methods.calls):
        held.reply(bytes(held.message))
    assert await asyncio.gather(*waiting) == [b"%d" % number for number in range(60)]


async def test_a_message_stays_valid(start: Any, methods: Methods) -> None:
    """A call may keep its message as long as it likes, whatever else comes in."""
    _, channel = await start()
    pending = [asyncio.ensure_future(call(channel, "Hold", b"%d" % n * 5000)) for n in range(5)]
    while len(methods.calls) < 5:
        methods.arrived.clear()
        await methods.arrived.wait()
    for number in range(50):
        await call(channel, "Echo", b"%d" % number * 9000)
    expected = sorted(b"%d" % n * 5000 for n in range(5))
    assert sorted(bytes(held.message) for held in methods.calls) == expected
    for held in methods.calls:
        held.reply(b"")
    await asyncio.gather(*pending)


@pytest.mark.parametrize("method", ["Hold", "UnaryWait"])
async def test_a_cancelled_call_tells_its_method(start: Any, methods: Methods, method: str) -> None:
    """Every callback runs, one that raises included, the coroutine is cancelled, a late answer is ignored."""
    _, channel = await start()
    pending = call(channel, method)
    await methods.arrived.wait()
    pending.cancel()
    await methods.cancelled.wait()
    for held in methods.calls:
        held.reply(b"late")
    assert await call(channel, "Echo", b"next") == b"next"


@pytest.mark.parametrize("method", ["Hold", "UnaryWait"])
async def test_an_expired_deadline_cancels(start: Any, methods: Methods, method: str) -> None:
    """The client gets DEADLINE_EXCEEDED and the method is told."""
    _, channel = await start()
    error = await failure(call(channel, method, timeout=0.05))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await methods.cancelled.wait()
    for held in methods.calls:
        held.reply(b"late")
    assert await call(channel, "Echo", b"next") == b"next"


async def test_a_lost_connection_cancels(start: Any, methods: Methods) -> None:
    """A client that vanishes is a client that cancels."""
    _, channel = await start()
    pending = call(channel, "Hold")
    await methods.arrived.wait()
    await channel.close()
    await methods.cancelled.wait()
    assert pending.done()


async def test_an_answered_call_is_not_cancelled(start: Any, methods: Methods) -> None:
    """Hooks run only before the answer, not when the client goes afterwards."""
    _, channel = await start()
    pending = asyncio.ensure_future(call(channel, "Hold"))
    await methods.arrived.wait()
    methods.calls[0].reply(b"done")
    assert await pending == b"done"
    other = call(channel, "UnaryWait")
    await channel.close()
    assert other.done()
    assert methods.cancellations <= 1
