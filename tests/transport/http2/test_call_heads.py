"""Heads of calls whose header blocks have something new in them, against heads built afresh."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls import RpcService
from gateway.transport.grpc_native_head import CallHead, CallHeads, methods_by_path, timeout_s
from gateway.transport.http2.errors import StreamFault
from gateway.transport.http2.head_memo import HeadMemo, MemoBudget
from gateway.transport.http2.hpack_decoder import DecodedBlock, HpackDecoder
from gateway.transport.http2.huffman import HuffmanStrings
from loadtests import captured
from loadtests.hpack_blocks import string_literal

if TYPE_CHECKING:
    from gateway.core.calls import RpcCall, RpcStream, UnaryRpc

GOOD = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/s/Unary"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


def begin(_: RpcCall) -> None:
    """Answer nothing."""


async def run(_: RpcStream) -> None:
    """Answer nothing."""


def unused(method: UnaryRpc) -> None:
    raise AssertionError(method)


def call_heads(*, accept_compression: bool = True) -> CallHeads:
    services = [
        RpcService("s", begin={"Unary": begin}, stream={"Stream": run}),
        RpcService("inference.GRPCInferenceService", begin={"ModelInfer": begin}),
    ]
    methods = methods_by_path(services, unused)  # type: ignore[arg-type]
    return CallHeads(methods, accept_compression=accept_compression, response_encoding="gzip")


def decoded(heads: CallHeads, fields: list[tuple[str, str]], limit: int = 1 << 16) -> DecodedBlock:
    decoder = HpackDecoder(HuffmanStrings(4096), heads.names)
    return decoder.decode(hpack.Encoder().encode(fields), limit)


def built(heads: CallHeads, fields: list[tuple[str, str]]) -> tuple[object, ...]:
    """Return all that a head says, or why there is none."""
    try:
        return facts(heads.build(decoded(heads, fields)))
    except StreamFault as fault:
        return (fault.code, fault.reason)


def facts(head: CallHead) -> tuple[object, ...]:
    return (
        head.begin,
        None if head.stream is None else (head.stream.run, head.stream.single),
        dict(head.metadata),
        head.timeout_s,
        head.encoding,
        head.accepts,
        head.content_length,
        head.refusal,
        head.too_large,
    )


FURTHER = st.lists(
    st.one_of(
        st.tuples(st.just("grpc-timeout"), st.sampled_from(["1S", "250m", "", "1", "1x", "9" * 20 + "H"])),
        st.tuples(st.sampled_from(["grpc-encoding"]), st.sampled_from(["identity", "gzip", "zstd"])),
        st.tuples(st.just("grpc-accept-encoding"), st.sampled_from(["", "gzip", "identity,deflate"])),
        st.tuples(st.just("content-length"), st.sampled_from(["1", "2", "x"])),
        st.tuples(st.just("te"), st.sampled_from(["trailers", "gzip"])),
        st.tuples(
            st.sampled_from(["traceparent", "x-id", "x-bin", "X", "upgrade"]), st.text("ab\n", max_size=2)
        ),
        st.tuples(
            st.sampled_from([":path", ":authority", ":method"]),
            st.sampled_from(["/s/Unary", "/s/Stream", "/s/None", "GET", "POST"]),
        ),
    ),
    max_size=4,
)


@given(lists=st.lists(st.tuples(st.permutations(range(5)) | st.just(range(5)), FURTHER), max_size=12))
def test_an_outline_says_what_a_fresh_head_says(lists: list[tuple[list[int], list[tuple[str, str]]]]) -> None:
    """Whatever came before: order, repetition, what is refused and why."""
    heads = call_heads(accept_compression=False)
    for order, further in lists:
        fields = [GOOD[index] for index in order] + further
        assert built(heads, fields) == built(call_heads(accept_compression=False), fields)


def test_heads_that_differ_in_free_fields_share_an_outline() -> None:
    """Metadata and timeout are each call's own; joined where a name is repeated, without binary ones."""
    heads = call_heads()
    first = heads.build(
        decoded(heads, [*GOOD, ("grpc-timeout", "1S"), ("authorization", "Bearer x"), ("x-id", "1")])
    )
    second = heads.build(decoded(heads, [*GOOD, ("x-id", "1"), ("a-bin", "AA"), ("x-id", "2")]))
    assert (first.timeout_s, dict(first.metadata)) == (1.0, {"authorization": "Bearer x", "x-id": "1"})
    assert (second.timeout_s, dict(second.metadata)) == (None, {"x-id": "1, 2"})
    assert len(heads._outlines) == 1
    assert "Bearer" not in repr(heads._outlines)


@pytest.mark.parametrize(
    "fields",
    [
        [*GOOD[:2], (":path", "/s/None"), *GOOD[3:]],
        [(":method", "GET"), *GOOD[1:]],
        [*GOOD[:3], ("content-type", "text/html")],
        [*GOOD, ("grpc-encoding", "zstd")],
        [*GOOD, ("grpc-timeout", "soon")],
    ],
    ids=["method", "verb", "content", "encoding", "timeout"],
)
def test_a_refused_call_is_refused_again(fields: list[tuple[str, str]]) -> None:
    """Before and after good ones."""
    heads = call_heads()
    for _ in range(2):
        assert heads.build(decoded(heads, fields)).refusal
        assert not heads.build(decoded(heads, GOOD)).refusal
    assert not any(outline.refusal for outline in heads._outlines.values())


@pytest.mark.parametrize(("tail", "seconds"), [("x", None), ("1S", 1.0), (" x", None), ("S", 0.0)])
def test_zeros_before_a_timeout_cost_no_more_than_others(tail: str, seconds: float | None) -> None:
    """A reading that goes back over them would take minutes here, with the event loop."""
    assert timeout_s("0" * 300_000 + tail) == seconds


def test_outlines_are_few_and_small() -> None:
    """No client can make them many or large."""
    heads = call_heads()
    for number in range(2000):
        heads.build(decoded(heads, [*GOOD, ("content-length", str(number))]))
    assert 0 < len(heads._outlines) <= 256
    heads._outlines.clear()
    heads.build(decoded(heads, [*GOOD, ("grpc-accept-encoding", "x" * 2048)]))
    heads.build(decoded(heads, GOOD + [("x", "")] * 64))
    heads.build(decoded(heads, GOOD, limit=100))
    assert not heads._outlines


@pytest.mark.parametrize("variant", ["plain", "deadlines", "traceparent", "deadlines+traceparent"])
@pytest.mark.parametrize("client", ["grpcio", "grpc-go", "grpc-js"])
def test_what_real_clients_send(client: str, variant: str) -> None:
    """A connection's blocks, two rounds of the captured cycle, as the library decodes them."""
    heads, library = call_heads(), hpack.Decoder()
    memo = HeadMemo(HuffmanStrings(1 << 16), heads, 1 << 16, 1 << 14, MemoBudget(1 << 20))
    templates = captured.load(client, variant).templates
    for parts in [*templates.blocks, *templates.blocks[templates.cycle :]]:
        block = b"".join(
            part if isinstance(part, bytes) else string_literal(part.sample.encode(), huffman=part.huffman)
            for part in parts
        )
        fields = [(name.decode(), value.decode()) for name, value in library.decode(block, raw=True)]
        assert facts(memo.head(block)) == built(heads, fields)
    assert len(heads._outlines) == 1
