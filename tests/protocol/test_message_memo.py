"""Remembered heads of ModelInferRequest and ModelInferResponse messages, with the parser as the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._proto import open_inference_pb2 as pb
from gateway.core.errors import GatewayError
from gateway.core.types import Datatype, InferRequest, ParameterValue, Tensor
from gateway.protocol.message_memo import MessageMemo
from gateway.protocol.protobuf_infer import decode_request, encode_response, response_heads
from tests.protocol.tensor_strategies import response_of, tensors

IDS = st.text(max_size=60)


def decode(message: bytes) -> InferRequest:
    return decode_request(message, arrived_s=0.0)


def message_of(data: bytes, request_id: str = "", **changes: Any) -> bytes:
    request = pb.ModelInferRequest(
        model_name=changes.get("model_name", "digits"),
        model_version=changes.get("model_version", ""),
        id=request_id,
        raw_input_contents=[data],
    )
    request.inputs.add(
        name="x", datatype=changes.get("datatype", "FP32"), shape=[changes.get("size", len(data) // 4)]
    )
    for name in changes.get("outputs", ()):
        request.outputs.add(name=name)
    for name, value in changes.get("parameters", {}).items():
        request.parameters[name].int64_param = value
    return request.SerializeToString()


def learned(*messages: bytes) -> MessageMemo:
    memo = MessageMemo()
    for message in messages:
        memo.put(message, decode(message))
    return memo


def same(memo: MessageMemo, message: bytes) -> bool:
    """Whether the memo knows the message; what it then says of it must be what the parser says."""
    known = memo.get(message)
    if known is None:
        return False
    parsed, head = decode(message), known.head
    assert known.request_id == parsed.request_id
    assert (head.model_name, head.model_version) == (parsed.model_name, parsed.model_version)
    assert (head.outputs, head.parameters) == (parsed.outputs, parsed.parameters)
    assert (head.priority, parsed.deadline_s) == (parsed.priority, None)
    (mine,), (oracle,) = head.tensors(message), parsed.inputs
    assert (mine.name, mine.datatype, mine.array.shape) == (oracle.name, oracle.datatype, oracle.array.shape)
    assert mine.array.tobytes() == oracle.array.tobytes()
    assert not mine.array.flags.writeable
    return True


@given(
    st.integers(1, 300).flatmap(
        lambda n: st.tuples(*[st.binary(min_size=4 * n, max_size=4 * n) for _ in range(2)])
    ),
    IDS,
    IDS,
    st.fixed_dictionaries(
        {},
        optional={
            "model_version": st.sampled_from(["1", "22"]),
            "outputs": st.sampled_from([["y"], ["y", "z"]]),
            "parameters": st.sampled_from([{"priority": 2}, {"mine": 7}]),
            "datatype": st.sampled_from(["FP32", "INT32", "UINT32"]),
        },
    ),
)
def test_another_message_with_the_same_head_is_read_alike(
    data: tuple[bytes, bytes], one: str, other: str, changes: dict[str, Any]
) -> None:
    """Id and tensor may differ, everything else is known."""
    memo = learned(message_of(data[0], one, **changes))
    recognised = same(memo, message_of(data[1], other, **changes))
    # Ids whose lengths take two bytes are left to the parser, and teach nothing.
    assert recognised is (len(one.encode()) < 128 and len(other.encode()) < 128)


@given(st.data())
def test_no_message_is_read_otherwise_than_by_the_parser(data: st.DataObject) -> None:
    """Bytes changed, put in, taken out anywhere: what is recognised is a message, and says the same."""
    memo = learned(message_of(bytes(64), "abc"), message_of(bytes(64)), message_of(bytes(12), outputs=["y"]))
    message = bytearray(message_of(data.draw(st.binary(min_size=64, max_size=64)), "xyz"))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(message) - 1))
        kind = data.draw(st.sampled_from(["change", "insert", "remove"]))
        if kind == "change":
            message[at] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            message[at:at] = data.draw(st.binary(max_size=4))
        else:
            del message[at : at + data.draw(st.integers(1, 4))]
    try:
        decode(bytes(message))
    except GatewayError:
        assert memo.get(bytes(message)) is None
    else:
        same(memo, bytes(message))


def named(name: str, size: int) -> bytes:
    """A message whose head has the same length whatever the size, as long as the name makes up for it."""
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[bytes(4 * size)])
    request.inputs.add(name=name, datatype="FP32", shape=[1, size])
    return request.SerializeToString()


def head_bytes(message: bytes, size: int) -> bytes:
    return message[: len(message) - 4 * size]


@given(st.integers(1, 40), st.integers(1, 40), st.binary(max_size=200), st.integers(0, 8))
def test_a_head_is_known_only_with_as_many_bytes_behind_it(
    one: int, other: int, tail: bytes, padding: int
) -> None:
    """Other messages of the same size have other heads: theirs say nothing of this one's tensor."""
    first, second = named("x", one), named("x" + "y" * padding, other)
    memo = learned(first, second)
    for message in (
        head_bytes(first, one) + tail,
        head_bytes(second, other) + tail,
        head_bytes(first, one) + bytes(4 * other),
        head_bytes(first, one)[:-1] + bytes(4 * one),
    ):
        try:
            decode(message)
        except GatewayError:
            assert memo.get(message) is None
        else:
            same(memo, message)


def test_a_truncated_message_is_not_taken_for_a_shorter_one() -> None:
    """Two heads of one length and a message that is one's head and the other's tail."""
    long, short = named("x", 1000), named("xyy", 1)
    assert len(head_bytes(long, 1000)) == len(head_bytes(short, 1))
    memo = learned(long, short)
    assert memo.get(head_bytes(long, 1000) + bytes(4)) is None
    known = memo.get(long)
    assert known is not None
    with pytest.raises(ValueError, match="has no tensor"):
        known.head.tensors(bytes(10))


@pytest.mark.parametrize(
    "message",
    [
        message_of(bytes(4), datatype="BOOL", size=4),
        message_of(bytes(4), parameters={"timeout": 5}),
        message_of(bytes(4), model_name="m" * 128),
        # The tensor is not the last field, or there is another id behind it.
        message_of(bytes(4)) + b"\x1a\x01i",
        message_of(bytes(4)) + b"\x42\x06\x3a\x04" + bytes(4),
        b"\x1a\x01i" + message_of(bytes(4)),
        # An id whose tag is written longer than it need be.
        message_of(bytes(4)).replace(b"\x0a\x06digits", b"\x0a\x06digits\x9a\x00\x02zz"),
    ],
)
def test_what_does_not_repeat_is_not_remembered(message: bytes) -> None:
    """Data that must be looked at, a time limit, long names, fields in another order."""
    memo = learned(message)
    assert memo.get(message) is None


def test_an_id_beyond_the_limit_is_left_to_the_parser() -> None:
    """Which refuses it."""
    memo = MessageMemo(max_id_bytes=3)
    memo.put(message_of(bytes(4)), decode(message_of(bytes(4))))
    assert memo.get(message_of(bytes(4), "123")) is not None
    assert memo.get(message_of(bytes(4), "1234")) is None


@given(st.lists(tensors(), max_size=3), IDS, IDS)
def test_responses_are_the_same_with_and_without_memory(outputs: list[Tensor], one: str, other: str) -> None:
    """Byte for byte, whether the head is made or remembered."""
    named = [Tensor(f"y{i}", tensor.datatype, tensor.array) for i, tensor in enumerate(outputs)]
    heads = response_heads()
    for request_id in (one, other, one):
        response = response_of(*named, request_id=request_id)
        assert encode_response(response, heads) == encode_response(response)


@pytest.mark.parametrize("first", [{}, {"p": 1}, {"p": True}, {"p": "a"}, {"q": "a"}])
def test_responses_that_differ_in_their_parameters_have_heads_of_their_own(
    first: dict[str, ParameterValue],
) -> None:
    """Whatever was written before, a response reads as if it were the first."""
    heads = response_heads()
    for parameters in (first, {"p": True}, {"p": 1}, {"p": "b"}, {}):
        response = response_of(Tensor("y", Datatype.FP32, np.zeros(1, np.float32)))
        response.parameters = parameters
        assert encode_response(response, heads) == encode_response(response)


def test_responses_of_long_named_models_are_written_too() -> None:
    """A name that leaves no telling where the id belongs."""
    response = response_of(Tensor("y", Datatype.FP32, np.zeros(1, np.float32)), request_id="7")
    response.model_name = "m" * 200
    assert encode_response(response, response_heads()) == encode_response(response)
