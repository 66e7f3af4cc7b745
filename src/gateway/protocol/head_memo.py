"""Remembers the JSON heads of binary requests: clients repeat theirs to the byte, only tensors change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from gateway.core.types import Datatype, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.calls import Buffer
    from gateway.core.types import ParameterValue, RequestedOutput
    from gateway.protocol.json_infer import DecodedRequest, ReplyForm

_MAX_HEADS: Final = 512
_MAX_HEAD_BYTES: Final = 4096
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
    kind: object

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


class HeadMemo:
    """Heads by their exact bytes.

    A hit needs every byte equal, so it can only repeat what the parser said of the same bytes. Remembers
    neither heads with a request id (they differ from call to call) nor inputs with data in the JSON, of BYTES
    or of BOOL. Holds at most 512 heads of at most 4 KiB; when full it starts anew.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, RequestHead] = {}

    def get(self, text: bytes) -> RequestHead | None:
        """Return what is known of a head."""
        return self._heads.get(text)

    def put(self, text: bytes, tail_bytes: int, decoded: DecodedRequest, timeout_us: int) -> None:
        """Remember the head of a request that was decoded well, if it is of the kind that repeats."""
        request, form = decoded
        if request.request_id or not tail_bytes or len(text) > _MAX_HEAD_BYTES:
            return
        slices, start = list[_Slice](), 0
        for tensor in request.inputs:
            if tensor.datatype in _NOT_SLICED:
                return
            slices.append(_Slice(tensor.name, tensor.datatype, tensor.array.shape, start))
            start += tensor.array.nbytes
        if start != tail_bytes:
            return  # some input has its data in the JSON
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        self._heads[text] = RequestHead(
            tuple(slices),
            tail_bytes,
            request.outputs,
            request.parameters,
            request.priority,
            timeout_us,
            form,
            any(output.classification for output in request.outputs),
            object(),
        )
