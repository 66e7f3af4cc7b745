"""Remembers the JSON heads of binary requests: clients repeat theirs to the byte, only tensors change."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from gateway.core.types import Datatype, ParameterValue, RequestedOutput, Tensor
from gateway.protocol.json_infer import ReplyForm

if TYPE_CHECKING:
    from gateway.core.calls import Buffer
    from gateway.protocol.json_infer import DecodedRequest

_MAX_HEADS: Final = 512
MAX_HEAD_BYTES: Final = 4096
"""Longer heads are not remembered."""
_MAX_PLACES: Final = 8  # where ids were seen: each is looked at for every head with an id
MAX_ID_BYTES: Final = 128
"""Longer ids are not recognised."""
is_plain_id: Final = re.compile(rb"[A-Za-z0-9_.:/+=-]+").fullmatch
"""Matches ids that are written in JSON as they are."""
_NOT_SLICED: Final = frozenset({Datatype.BYTES, Datatype.BOOL})
"""Datatypes whose bytes must be looked at, not just viewed."""


class _Slice(NamedTuple):
    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    start: int


class RequestHead(NamedTuple):
    """What a head says that was parsed and checked before, but for the tensors' bytes.

    Attributes:
        slices: where each input lies in the tail.
        tail_bytes: the tail's size.
        outputs: as `InferRequest.outputs`.
        parameters: likewise.
        priority: likewise.
        timeout_us: the `timeout` parameter; 0 when not given.
        form: how the response is to be written.
        classifies: an output is asked for as its top classes.
        kind: as `InferRequest.kind`.
    """

    slices: tuple[_Slice, ...]
    tail_bytes: int
    outputs: tuple[RequestedOutput, ...]
    parameters: Mapping[str, ParameterValue]
    priority: int
    timeout_us: int
    form: ReplyForm
    classifies: bool
    kind: Hashable

    def tensors(self, body: Buffer, text_bytes: int = 0) -> tuple[Tensor, ...]:
        """Return the inputs as views over `body`, whose `tail_bytes` bytes begin after `text_bytes`."""
        if len(self.slices) == 1:
            name, datatype, shape, _ = self.slices[0]
            return (Tensor(name, datatype, np.ndarray(shape, datatype.dtype, body, text_bytes)),)
        return tuple(
            [
                Tensor(name, datatype, np.ndarray(shape, datatype.dtype, body, text_bytes + start))
                for name, datatype, shape, start in self.slices
            ]
        )


class KnownHead:
    """A head that was recognised, with the id in it."""

    __slots__ = (
        "head",
        "request_id",
    )

    def __init__(
        self,
        head: RequestHead,
        request_id: str,
    ) -> None:
        self.head = head
        self.request_id = request_id


class HeadMemo:
    """Heads by their exact bytes, but for the request id, which differs from call to call.

    A hit needs every other byte equal, so it can only repeat what the parser said of the same bytes. Only ids
    that mean themselves in JSON are cut out: some letters, digits and signs. Does not remember inputs with
    data in the JSON, of BYTES or of BOOL. Holds at most 512 heads of at most 4 KiB with an id and as many
    without; when full it starts anew.

    Args:
        max_id_bytes: heads with a longer id are left to the parser.
    """

    def __init__(self, max_id_bytes: int = MAX_ID_BYTES) -> None:
        self._max_id_bytes = min(max_id_bytes, MAX_ID_BYTES)
        self._heads: dict[bytes, RequestHead] = {}
        self._around_ids: dict[bytes, dict[bytes, RequestHead]] = {}
        """What is before an id -> what is behind it -> the head."""

    def get(self, text: bytes) -> KnownHead | None:
        """Return what is known of a head."""
        head = self._heads.get(text)
        if head is not None:
            return KnownHead(head, "")
        for before, heads in self._around_ids.items():
            if not text.startswith(before):
                continue
            begin = len(before)
            end = text.find(b'"', begin)
            head = heads.get(text[end:]) if 0 < end - begin <= self._max_id_bytes else None
            if head is not None and is_plain_id(text[begin:end]):
                return KnownHead(head, text[begin:end].decode("ascii"))
        return None

    def put(self, text: bytes, tail_bytes: int, decoded: DecodedRequest, timeout_us: int) -> None:
        """Remember the head of a request that was decoded well, if it is of the kind that repeats."""
        request, form = decoded
        if not tail_bytes or len(text) > MAX_HEAD_BYTES:
            return
        slices, start = list[_Slice](), 0
        for tensor in request.inputs:
            if tensor.datatype in _NOT_SLICED:
                return
            slices.append(_Slice(tensor.name, tensor.datatype, tensor.array.shape, start))
            start += tensor.array.nbytes
        if start != tail_bytes:
            return  # some input has its data in the JSON
        self._keep(
            text,
            request.request_id,
            RequestHead(
                tuple(slices),
                tail_bytes,
                request.outputs,
                request.parameters,
                request.priority,
                timeout_us,
                form,
                any(output.classification for output in request.outputs),
                object(),
            ),
        )

    def _keep(self, text: bytes, request_id: str, head: RequestHead) -> None:
        if not request_id:
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            self._heads[text] = head
            return
        literal = request_id.encode()
        quoted = b'"%b"' % literal
        # Without a backslash the id stands there as it is; only once, so that it is clear where.
        if not is_plain_id(literal) or b"\\" in text or text.count(quoted) != 1:
            return
        begin = text.index(quoted) + 1
        before, behind = text[:begin], text[begin + len(literal) :]
        heads = self._around_ids.get(before)
        if heads is None:
            if len(self._around_ids) >= _MAX_PLACES:
                self._around_ids.clear()
            heads = self._around_ids[before] = {}
        if len(heads) >= _MAX_HEADS // _MAX_PLACES:
            heads.clear()
        heads[behind] = head
