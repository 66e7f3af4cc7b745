"""Remembers the heads of ModelInferRequest messages, and of their answers: from one client they repeat.

What changes from call to call is the request id and the bytes of the tensor. Clients write the fields of a
message in the order of their numbers, so that the id follows the model's name and version, and the raw
tensor is the last. A message of that form whose other bytes are all known needs no parsing.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from gateway.core.errors import InvalidRequest
from gateway.core.types import Datatype, ParameterValue, RequestedOutput, Tensor
from gateway.protocol.parameters import add_repeating
from gateway.protocol.protobuf_split import fields
from gateway.protocol.raw_tensor import to_raw

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.calls import Buffer
    from gateway.core.types import InferRequest, InferResponse

_MAX_HEADS: Final = 512
_MAX_HEAD_BYTES: Final = 4096
_NAME_TAG: Final = 0x0A  # field 1 of ModelInferRequest, length-delimited
_VERSION_TAG: Final = 0x12  # field 2
_ID_TAG: Final = 0x1A  # field 3
_ID: Final = 3
_RAW: Final = 7
_SHORT: Final = 0x80  # lengths below it take one byte
_NOT_SLICED: Final = frozenset({Datatype.BYTES, Datatype.BOOL})
_RESPONSE_ID_TAG: Final = b"\x1a"  # field 3 of ModelInferResponse
_MOST_FIELDS: Final = 64
_MAX_OUTPUT_BYTES: Final = (
    1 << 20
)  # beyond it a head costs nothing in comparison, and sizes are to be checked
_TIMEOUT: Final = b"timeout"  # as a parameter's key; elsewhere it costs no more than the memo


class MessageHead(NamedTuple):
    """What all messages say that differ only in their id and in the bytes of their tensor.

    Attributes:
        model_name: the model's name.
        model_version: its version as asked.
        input_name: of the only input.
        datatype: likewise.
        shape: likewise.
        raw_bytes: size of its data, which ends the message.
        outputs: as `InferRequest.outputs`.
        parameters: likewise.
        priority: likewise.
        kind: as `InferRequest.kind`.
    """

    model_name: str
    model_version: str
    input_name: str
    datatype: Datatype
    shape: tuple[int, ...]
    raw_bytes: int
    outputs: tuple[RequestedOutput, ...]
    parameters: Mapping[str, ParameterValue]
    priority: int
    kind: Hashable

    def tensors(self, message: Buffer) -> tuple[Tensor, ...]:
        """Return the input as a view over the end of `message`, which `MessageMemo.get` has recognised."""
        start = len(message) - self.raw_bytes
        if start < 0:  # NumPy would take it, and read what is before the message
            raise ValueError(f"a message of {len(message)} bytes has no tensor of {self.raw_bytes}")
        array = np.ndarray(self.shape, self.datatype.dtype, message, start)
        return (Tensor(self.input_name, self.datatype, array),)


class KnownMessage:
    """A message that was recognised."""

    __slots__ = (
        "head",
        "request_id",
    )

    def __init__(
        self,
        head: MessageHead,
        request_id: str,
    ) -> None:
        self.head = head
        self.request_id = request_id


class MessageMemo:
    """Heads of requests by their exact bytes but for the id.

    A hit needs every byte equal, so it can only repeat what the parser said of the same bytes. Only heads
    with one input, raw, neither BYTES nor BOOL, without outputs asked for as classes and without the
    `timeout` parameter. Holds at most 512 heads of at most 4 KiB; when full it starts anew.

    Args:
        max_id_bytes: messages with a longer id are left to the parser.
    """

    def __init__(self, max_id_bytes: int = _SHORT - 1) -> None:
        self._max_id_bytes = max_id_bytes
        self._heads: dict[bytes, MessageHead] = {}
        self._raw_bytes: dict[int, int] = {}
        """Size of a message without its id -> size of its tensor, as last seen."""

    def get(self, message: Buffer) -> KnownMessage | None:
        """Return what is known of a message, None when it has to be parsed."""
        place = _id_place(message)
        if place is None:
            return None
        begin, end = place
        if end - begin > 2 + self._max_id_bytes:
            return None
        size = len(message)
        raw_bytes = self._raw_bytes.get(size - end + begin)
        if raw_bytes is None:
            return None
        head = self._heads.get(bytes(message[:begin]) + message[end : size - raw_bytes])
        # A message of this size was cut where another head's tensor began: this one's must be as large.
        if head is None or head.raw_bytes != raw_bytes:
            return None
        try:
            return KnownMessage(head, str(message[begin + 2 : end], "utf-8"))
        except UnicodeDecodeError:
            return None  # the parser says what is wrong with it

    def put(self, message: Buffer, request: InferRequest) -> None:
        """Remember the head of a message that was decoded well, if it is of the form that repeats."""
        if len(request.inputs) != 1 or request.inputs[0].datatype in _NOT_SLICED:
            return
        if any(output.classification for output in request.outputs):
            return
        tensor = request.inputs[0]
        name, datatype, array = tensor.name, tensor.datatype, tensor.array
        place, raw_bytes = _id_place(message), array.nbytes
        head_bytes = len(message) - raw_bytes
        if place is None or not 0 < head_bytes <= _MAX_HEAD_BYTES or not _in_order(message, head_bytes):
            return
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
            self._raw_bytes.clear()
        begin, end = place
        head = bytes(message[:begin]) + message[end:head_bytes]
        if _TIMEOUT in head or bytes(message[begin + 2 : end]) != request.request_id.encode():
            return
        self._raw_bytes[len(message) - end + begin] = raw_bytes
        self._heads[head] = MessageHead(
            request.model_name,
            request.model_version,
            name,
            datatype,
            array.shape,
            raw_bytes,
            request.outputs,
            request.parameters,
            request.priority,
            object(),
        )


def _id_place(message: Buffer) -> tuple[int, int] | None:
    """Return where the field of the id begins and ends, equal when there is none; None if not to be told."""
    try:
        if message[0] != _NAME_TAG or message[1] >= _SHORT:
            return None
        begin = 2 + message[1]
        if message[begin] == _VERSION_TAG:
            if message[begin + 1] >= _SHORT:
                return None
            begin += 2 + message[begin + 1]
        if message[begin] != _ID_TAG:
            return begin, begin
        if message[begin + 1] >= _SHORT:
            return None
        return begin, begin + 2 + message[begin + 1]
    except IndexError:
        return None


def _in_order(message: Buffer, head_bytes: int) -> bool:
    """Whether the fields come in the order of their numbers, name, version and id once, a raw tensor last."""
    view, last = memoryview(message), 0
    try:
        for field in fields(view, 0, len(message), most=_MOST_FIELDS):
            repeated = field.number == last and (field.number <= _ID or field.number == _RAW)
            if repeated or not last <= field.number <= _RAW or not field.delimited:
                return False
            last = field.number
    except InvalidRequest:
        return False
    return last == _RAW and field.content == head_bytes


class _ResponseHead(NamedTuple):
    """A response's bytes before the id, behind it, and before each further raw tensor."""

    before: bytes
    behind: bytes
    between: tuple[bytes, ...]


class ResponseHeads:
    """Heads of ModelInferResponse messages by everything they are made of.

    Only of responses with outputs, none of BYTES or beyond 1 MiB, and with parameters that are texts or
    booleans, if any. Holds at most 512; when full it starts anew.

    Args:
        serialise: returns a response without its raw contents as a message.
        raw_head: returns the tag and the length of a raw tensor of so many bytes.
    """

    def __init__(self, serialise: Callable[[InferResponse], bytes], raw_head: Callable[[int], bytes]) -> None:
        self._serialise = serialise
        self._raw_head = raw_head
        self._heads: dict[tuple[object, ...], _ResponseHead] = {}

    def message(self, response: InferResponse) -> bytes | None:
        """Return the whole message if it is of the kind that repeats, else None."""
        if not response.outputs:
            return None
        key: list[object] = [response.model_name, response.model_version]
        if response.parameters and not add_repeating(key, response.parameters):
            return None
        for tensor in response.outputs:
            name, datatype, array = tensor.name, tensor.datatype, tensor.array
            if datatype is Datatype.BYTES or array.nbytes > _MAX_OUTPUT_BYTES:
                return None
            key += (name, array.dtype.num, array.shape)
        head = self._head(tuple(key), response)
        identity = _id_field(response.request_id) if response.request_id else b""
        if head is None or identity is None:
            return None
        before, behind, between = head
        if len(response.outputs) == 1:
            return b"".join((before, identity, behind, to_raw(response.outputs[0])))
        parts: list[Buffer] = [before, identity, behind, to_raw(response.outputs[0])]
        for raw_head, tensor in zip(between, response.outputs[1:], strict=True):
            parts += (raw_head, to_raw(tensor))
        return b"".join(parts)

    def _head(self, key: tuple[object, ...], response: InferResponse) -> _ResponseHead | None:
        head = self._heads.get(key)
        if head is None and (head := self._made(response)) is not None:
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            self._heads[key] = head
        return head

    def _made(self, response: InferResponse) -> _ResponseHead | None:
        """Return the head of a response; None when a name or the id is too long to tell its place."""
        message = self._serialise(response)
        place = _id_place(message)
        if place is None:
            return None
        begin, end = place
        first, *others = [self._raw_head(tensor.array.nbytes) for tensor in response.outputs]
        return _ResponseHead(message[:begin], message[end:] + first, tuple(others))


def _id_field(request_id: str) -> bytes | None:
    """Return the field of an id, None when it is too long for a length of one byte."""
    text = request_id.encode()
    return b"%b%c%b" % (_RESPONSE_ID_TAG, len(text), text) if len(text) < _SHORT else None
