"""Inference responses over HTTP: InferResponse to JSON, binary tensors behind it where asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np
import orjson

from gateway.core.calls import Buffer, Headers, HttpResponse
from gateway.core.errors import InvalidRequest
from gateway.core.types import Datatype
from gateway.protocol.head_memo import is_plain_id
from gateway.protocol.parameters import add_repeating
from gateway.protocol.raw_tensor import to_raw

if TYPE_CHECKING:
    from gateway.core.types import Array, InferResponse, Tensor
    from gateway.protocol.json_infer import ReplyForm

_BINARY_TYPE: Final = "application/octet-stream"
_HEADER_LENGTH: Final = "Inference-Header-Content-Length"
_MAX_HEADS: Final = 512


_Key: TypeAlias = tuple[object, ...]


class _Head(NamedTuple):
    """The JSON head of a binary response, and the HTTP header that tells its size."""

    text: bytes
    headers: Headers


class ResponseHeads:
    """JSON heads of binary responses by everything they are made of: they repeat as requests do.

    Only of responses with outputs, all binary, not BYTES and not empty, and with parameters that are texts
    or booleans, if any. The id is put in where it means itself in JSON. Holds at most 512; when full it
    starts anew.
    """

    def __init__(self) -> None:
        self._heads: dict[_Key, _Head] = {}

    def response(self, response: InferResponse, form: ReplyForm) -> HttpResponse | None:
        """Return the whole response if it is of the kind that repeats, else None."""
        if not response.outputs:
            return None
        key: list[object] = [response.model_name, response.model_version]
        if response.parameters and not add_repeating(key, response.parameters):
            return None
        for tensor in response.outputs:
            name, datatype, array = tensor.name, tensor.datatype, tensor.array
            if datatype is Datatype.BYTES or not array.size or not form.is_binary(name):
                return None
            key += (name, array.dtype.num, array.shape)
        text, headers = self._head(tuple(key), response)
        kind: object = text
        if response.request_id:
            literal = response.request_id.encode()
            if not is_plain_id(literal):
                return None
            kind = (text, len(literal))  # the size of the head is told in a header
            text = b'{"id":"%b",%b' % (literal, text[1:])
            headers = ((_HEADER_LENGTH, str(len(text))),)
        body = (text, *[to_raw(tensor) for tensor in response.outputs])
        return HttpResponse(200, body, _BINARY_TYPE, headers, compressible=False, kind=kind)

    def _head(self, key: _Key, response: InferResponse) -> _Head:
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            items = [_binary_item(tensor, tensor.array.nbytes) for tensor in response.outputs]
            text = b"%b[%b]}" % (_opening(response, named=False), b",".join(items))
            head = self._heads[key] = _Head(text, ((_HEADER_LENGTH, str(len(text))),))
        return head


def encode_response(
    response: InferResponse, form: ReplyForm, heads: ResponseHeads | None = None
) -> HttpResponse:
    """Return the HTTP response: status 200, JSON, and behind it the binary outputs as views, not copies.

    Data in JSON is always flat. FP16 and BF16 are written as numbers too, which Triton refuses. Binary
    outputs that are all empty leave the body plain JSON, as Triton does.

    Args:
        response: the answer.
        form: which outputs are to be binary.
        heads: heads of binary responses written before.

    Raises:
        InvalidRequest: a BYTES output that was asked for in JSON is not valid UTF-8.
    """
    if heads is not None and (known := heads.response(response, form)) is not None:
        return known
    items, parts = list[bytes](), list[Buffer]()
    for tensor in response.outputs:
        if form.is_binary(tensor.name):
            raw = to_raw(tensor)
            items.append(_binary_item(tensor, len(raw)))
            if len(raw):
                parts.append(raw)
        else:
            items.append(_json_item(tensor, response.model_name))
    text = b"%b[%b]}" % (_opening(response), b",".join(items))
    if not parts:
        return HttpResponse(200, (text,))
    headers = ((_HEADER_LENGTH, str(len(text))),)
    return HttpResponse(200, (text, *parts), _BINARY_TYPE, headers, compressible=False)


def _opening(response: InferResponse, *, named: bool = True) -> bytes:
    """Return the text of the response up to the list of outputs, with its id if `named`."""
    members: dict[str, Any] = {"id": response.request_id} if named and response.request_id else {}
    members |= {"model_name": response.model_name, "model_version": response.model_version}
    if response.parameters:
        members["parameters"] = dict(response.parameters)
    return orjson.dumps(members)[:-1] + b',"outputs":'


def _item_opening(tensor: Tensor) -> bytes:
    return orjson.dumps(
        {"name": tensor.name, "datatype": tensor.datatype.value, "shape": tensor.array.shape}
    )[:-1]


def _binary_item(tensor: Tensor, size: int) -> bytes:
    return b'%b,"parameters":{"binary_data_size":%d}}' % (_item_opening(tensor), size)


def _json_item(tensor: Tensor, model: str) -> bytes:
    return b'%b,"data":%b}' % (_item_opening(tensor), data_json(tensor, model))


def data_json(tensor: Tensor, model: str) -> bytes:
    """Return the elements as a flat JSON array; NaN and Infinity as the tokens that Triton writes.

    Raises:
        InvalidRequest: a BYTES element is not valid UTF-8.
    """
    flat = np.ascontiguousarray(tensor.array).reshape(-1)
    if tensor.datatype is Datatype.BYTES:
        return orjson.dumps(_texts(flat, tensor.name, model))
    with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN like any other
        if tensor.datatype is Datatype.BF16:
            flat = flat.astype(np.float32)
        text = orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)
        if flat.dtype.kind != "f":
            return text
        finite = np.isfinite(flat)
        return text if finite.all() else _with_tokens(text, flat[~finite])


def _with_tokens(text: bytes, values: Array) -> bytes:
    """Put a token in place of each `null` that orjson writes for the non-finite `values`."""
    infinity = np.where(np.signbit(values), b"-Infinity", b"Infinity")
    tokens = np.where(np.isnan(values), b"NaN", infinity).tolist()
    pieces = text.split(b"null")
    merged = [b""] * (2 * len(pieces) - 1)
    merged[::2] = pieces
    merged[1::2] = tokens
    return b"".join(merged)


def _texts(elements: Array, output: str, model: str) -> list[str]:
    try:
        return [element.decode() for element in elements.tolist()]
    except UnicodeDecodeError as exc:
        msg = (
            f"output '{output}' of model '{model}' has bytes that are not valid UTF-8, which JSON cannot hold"
        )
        raise InvalidRequest(
            f"{msg}: ask for it as binary data (output parameter 'binary_data': true)"
        ) from exc
