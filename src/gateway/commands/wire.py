"""The client's side of binary HTTP requests: tensors to a body, and the body of an answer to tensors."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.commands.failure import CommandFailed
from gateway.core.types import Datatype, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.types import Array

HEADER_LENGTH: Final = "inference-header-content-length"


def encode_request(
    tensors: Sequence[Tensor], outputs: Sequence[Mapping[str, Any]] = ()
) -> tuple[dict[str, str], bytes]:
    """Return headers and body of a binary infer request.

    Args:
        tensors: inputs.
        outputs: outputs asked for, as in the protocol's JSON; none asks for all of them, in binary.
    """
    parts = [raw_bytes(tensor) for tensor in tensors]
    request: dict[str, Any] = {
        "inputs": [
            {**_described(tensor), "parameters": {"binary_data_size": len(part)}}
            for tensor, part in zip(tensors, parts, strict=True)
        ]
    }
    request |= {"outputs": list(outputs)} if outputs else {"parameters": {"binary_data_output": True}}
    head = json.dumps(request).encode()
    headers = {HEADER_LENGTH: str(len(head)), "content-type": "application/octet-stream"}
    return headers, b"".join([head, *parts])


def raw_bytes(tensor: Tensor) -> bytes:
    """Return a tensor's bytes on the wire: little endian, row-major; BYTES with 4-byte lengths."""
    if tensor.datatype is not Datatype.BYTES:
        return np.ascontiguousarray(tensor.array, dtype=tensor.datatype.dtype).tobytes()
    return b"".join(struct.pack("<I", len(item)) + item for item in tensor.array.reshape(-1))


def _described(tensor: Tensor) -> dict[str, Any]:
    shape = list(tensor.array.shape)
    return {"name": tensor.name, "datatype": tensor.datatype.value, "shape": shape}


def decode_response(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, Any], list[Tensor]]:
    """Split an answer into its JSON, outputs left out, and its outputs as tensors.

    Args:
        headers: lower-case names.
        body: the whole body; binary outputs of the result are read-only views of it.

    Raises:
        CommandFailed: the body does not follow the protocol.
    """
    try:
        end = int(headers.get(HEADER_LENGTH, len(body)))
        document = json.loads(body[:end])
        outputs = []
        for output in document.pop("outputs"):
            tensor, end = _decode_output(output, body, end)
            outputs.append(tensor)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, struct.error) as exc:
        raise CommandFailed(f"the answer does not follow the protocol: {exc!r}") from exc
    return document, outputs


def _decode_output(output: Mapping[str, Any], body: bytes, start: int) -> tuple[Tensor, int]:
    """Return one output and where the next one's bytes start."""
    datatype, shape = Datatype(output["datatype"]), tuple(output["shape"])
    size = output.get("parameters", {}).get("binary_data_size")
    if size is None:
        return Tensor(output["name"], datatype, _from_json(output["data"], datatype).reshape(shape)), start
    raw = memoryview(body)[start : start + size]
    flat = _split_bytes(raw) if datatype is Datatype.BYTES else np.frombuffer(raw, dtype=datatype.dtype)
    return Tensor(output["name"], datatype, flat.reshape(shape)), start + size


def _from_json(data: Any, datatype: Datatype) -> Array:
    if datatype is Datatype.BYTES:
        return object_array([item.encode() for item in np.ravel(np.array(data, dtype=object))])
    return np.array(data, dtype=datatype.dtype)


def _split_bytes(raw: memoryview) -> Array:
    items = []
    while raw:
        (length,) = struct.unpack_from("<I", raw)
        items.append(bytes(raw[4 : 4 + length]))
        raw = raw[4 + length :]
    return object_array(items)


def object_array(items: Sequence[bytes]) -> Array:
    """Return a one-dimensional object array; NumPy's own constructor would cut trailing zero bytes."""
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array
