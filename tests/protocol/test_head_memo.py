"""Remembered heads of binary requests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import InvalidRequest
from gateway.protocol.head_memo import HeadMemo
from gateway.protocol.json_infer import HEADER_LENGTH, DecodedRequest, HttpInferCall, decode_request

if TYPE_CHECKING:
    from gateway.core.types import ModelSignature


def no_signature() -> ModelSignature:
    raise AssertionError("only raw requests need it")


def decode(head: bytes, tail: bytes, memo: HeadMemo | None, arrived_s: float = 0.0) -> DecodedRequest:
    headers = {HEADER_LENGTH: str(len(head))}
    call = HttpInferCall(model_name="m", arrived_s=arrived_s, headers=headers)
    return decode_request(head + tail, call, signature=no_signature, memo=memo)


def head_of(*inputs: dict[str, Any], **members: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **members}).encode()


def binary(name: str, datatype: str, shape: list[int], size: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def same(one: DecodedRequest, other: DecodedRequest) -> bool:
    fields = ("model_name", "request_id", "outputs", "parameters", "priority", "deadline_s", "received_bytes")
    return (
        all(getattr(one.request, f) == getattr(other.request, f) for f in fields)
        and one.form == other.form
        and [(t.name, t.datatype, t.array.shape) for t in one.request.inputs]
        == [(t.name, t.datatype, t.array.shape) for t in other.request.inputs]
        and all(
            a.array.tobytes() == b.array.tobytes()
            for a, b in zip(one.request.inputs, other.request.inputs, strict=True)
        )
    )


SIZES = {"FP32": 4, "INT64": 8, "FP16": 2, "BF16": 2, "UINT8": 1, "BOOL": 1}


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(SIZES)), st.integers(0, 3), st.integers(0, 3)),
        min_size=1,
        max_size=3,
    ),
    st.binary(min_size=216, max_size=216),
    st.sampled_from([{}, {"parameters": {"timeout": 5, "priority": 2, "mine": "x"}}, {"id": "7"}]),
    st.sampled_from([[], [{"name": "y", "parameters": {"binary_data": True}}]]),
)
def test_a_second_request_with_the_same_head_is_decoded_alike(
    tensors: list[tuple[str, int, int]], data: bytes, members: dict[str, Any], outputs: list[Any]
) -> None:
    """Whatever the memo knows, the parser says the same of the same bytes."""
    inputs = [binary(str(i), d, [r, c], SIZES[d] * r * c) for i, (d, r, c) in enumerate(tensors)]
    head = head_of(*inputs, outputs=outputs, **members)
    size = sum(i["parameters"]["binary_data_size"] for i in inputs)
    memo = HeadMemo()
    decode(head, bytes(size), memo, arrived_s=1.0)
    tail = data[:size]
    assert same(decode(head, tail, memo, arrived_s=2.0), decode(head, tail, None, arrived_s=2.0))


def test_a_known_head_with_another_tail_goes_to_the_parser() -> None:
    """A body that is too short or too long is refused as if the head were new."""
    memo, head = HeadMemo(), head_of(binary("x", "FP32", [1, 2], 8))
    decode(head, bytes(8), memo)
    for tail in (bytes(7), bytes(9), b""):
        with pytest.raises(InvalidRequest):
            decode(head, tail, memo)


@pytest.mark.parametrize(
    "head",
    [
        head_of(binary("x", "FP32", [1, 1], 4), id="needs \\n escapes"),
        head_of(binary("x", "FP32", [1, 1], 4), id="x"),
        head_of(binary("x", "FP32", [1, 1], 4), id="i" * 129),
        head_of(binary("x", "BYTES", [1], 4)),
        head_of({"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}, binary("y", "FP32", [1], 4)),
        head_of(binary("x", "FP32", [1, 1], 4), padding="x" * 5000),
    ],
    ids=["id with escapes", "id that is elsewhere too", "long id", "BYTES", "data in JSON", "long"],
)
def test_heads_that_do_not_repeat_are_not_kept(head: bytes) -> None:
    """They would only push out those that do, or need their bytes looked at."""
    memo = HeadMemo()
    decode(head, bytes(4), memo)
    assert memo.get(head) is None


def test_the_memo_is_bounded() -> None:
    """It starts anew instead of growing."""
    memo = HeadMemo()
    heads = [head_of(binary(f"x{i}", "FP32", [1], 4)) for i in range(600)]
    for head in heads:
        decode(head, bytes(4), memo)
    assert 0 < len([h for h in heads if memo.get(h)]) <= 512


def test_tensors_are_views_that_cannot_be_written() -> None:
    """The received bytes are not copied, and stay as they came."""
    memo, head = HeadMemo(), head_of(binary("x", "FP32", [2], 8))
    decode(head, bytes(8), memo)
    tensor = decode(head, np.arange(2, dtype="<f4").tobytes(), memo).request.inputs[0]
    assert tensor.array.tolist() == [0.0, 1.0]
    assert not tensor.array.flags.owndata
    assert not tensor.array.flags.writeable


PLAIN_IDS = st.text("abcXYZ019_.:/+=-", min_size=1, max_size=40)
ANY_IDS = st.one_of(
    PLAIN_IDS, st.text(min_size=1, max_size=10), st.sampled_from(["x", "id", "inputs", "FP32"])
)


@given(
    st.lists(ANY_IDS, min_size=2, max_size=4),
    st.sampled_from(["first", "last"]),
    st.dictionaries(st.sampled_from(["mine", "id"]), ANY_IDS, max_size=2),
    st.sampled_from([{}, {"separators": (",", ":")}]),
)
def test_heads_are_known_but_for_their_ids(
    ids: list[str], place: str, parameters: dict[str, str], style: dict[str, Any]
) -> None:
    """Whatever the ids, wherever they stand, and whatever else looks like them: as the parser says."""
    memo, tail = HeadMemo(), np.arange(2, dtype="<f4").tobytes()
    inputs = {"inputs": [binary("x", "FP32", [1, 2], 8)], "parameters": parameters}
    for request_id in ids:
        named = {"id": request_id}
        head = json.dumps({**named, **inputs} if place == "first" else {**inputs, **named}, **style).encode()
        assert same(decode(head, tail, memo), decode(head, tail, None))


@given(PLAIN_IDS, PLAIN_IDS)
def test_a_head_with_another_plain_id_is_not_parsed_again(one: str, other: str) -> None:
    """Unless the first id also stood elsewhere in it."""
    memo = HeadMemo()
    heads = [head_of(binary("input", "FP32", [1, 2], 8), id=f"id/{name}") for name in (one, other)]
    decode(heads[0], bytes(8), memo)
    known = memo.get(heads[1])
    assert known is not None
    assert known.request_id == f"id/{other}"


def test_places_of_ids_are_bounded() -> None:
    """Clients that write ever other things before an id push each other out."""
    memo = HeadMemo()
    heads = [head_of(binary(f"x{i}", "FP32", [1], 4), id="7") for i in range(30)]
    for head in heads:
        decode(head, bytes(4), memo)
    assert 0 < len([h for h in heads if memo.get(h)]) <= 8
