"""`gateway infer`: sends one request made from a file to a running gateway and shows the outputs."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gateway.commands.client import GatewayClient, model_path, raise_for_status
from gateway.commands.failure import CommandFailed, Exit
from gateway.commands.inputs import guess_format, is_whole_request, parse_json, read_tensors
from gateway.commands.wire import HEADER_LENGTH, decode_response, encode_request
from gateway.core.types import Datatype

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.commands.client import Address
    from gateway.core.types import Tensor

_SHOWN_ELEMENTS = 24
_LINE_CHARACTERS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class InferOptions:
    """What to send where.

    Attributes:
        address: of the gateway.
        model: its name.
        version: its version, or empty for the gateway's choice.
        input: a file, or `-` for standard input.
        format: json, npy, npz or raw; empty guesses from the file's name.
        outputs: outputs wanted; empty for all.
        top: for each output that many classes with the highest scores, instead of the tensor; 0 for tensors.
        headers: sent with the request.
        timeout_s: for connecting, and for each read.
        as_json: print JSON instead of text.
    """

    address: Address
    model: str
    input: str
    version: str = ""
    format: str = ""
    outputs: tuple[str, ...] = ()
    top: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0
    as_json: bool = False


def parse_header(text: str) -> tuple[str, str]:
    """Split `Name: value`.

    Raises:
        CommandFailed: there is no colon.
    """
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise CommandFailed(f"not a header: {text!r}; expected 'Name: value'", Exit.USAGE)
    return name.strip(), value.strip()


def infer(options: InferOptions) -> None:
    """Send the request and print its outputs on standard output.

    Raises:
        CommandFailed: unreadable input, no gateway, or an error it answered.
    """
    content = _read(options.input)
    with GatewayClient(options.address, options.timeout_s, options.headers) as client:
        headers, body = _request(client, options, content)
        reply = client.request("POST", f"{model_path(options.model, options.version)}/infer", body, headers)
    raise_for_status(reply)
    document, outputs = decode_response(reply.headers, reply.body)
    if options.as_json:
        _print_json(document, outputs)
    else:
        _print_text(document, outputs)


def _read(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as exc:
        raise CommandFailed(f"cannot read {name}: {exc.strerror}") from exc


def _request(client: GatewayClient, options: InferOptions, content: bytes) -> tuple[dict[str, str], bytes]:
    kind = options.format or guess_format(options.input)
    if kind == "raw":
        return _raw_request(options, content)
    if kind == "json" and is_whole_request(document := parse_json(content)):
        return {"content-type": "application/json"}, _with_outputs(document, content, options)
    metadata = client.metadata(options.model, options.version)
    wanted = options.outputs or (tuple(o.name for o in metadata.outputs) if options.top else ())
    return encode_request(read_tensors(content, kind, metadata), _requested(wanted, options.top))


def _raw_request(options: InferOptions, content: bytes) -> tuple[dict[str, str], bytes]:
    if options.outputs or options.top:
        raise CommandFailed("a raw request has no room for --output and --top", Exit.USAGE)
    return {HEADER_LENGTH: "0", "content-type": "application/octet-stream"}, content


def _with_outputs(document: Mapping[str, Any], content: bytes, options: InferOptions) -> bytes:
    """Return a whole request as it came, or with the outputs of the command line instead of its own."""
    if not options.outputs:
        if options.top:
            raise CommandFailed("--top with a whole request needs --output", Exit.USAGE)
        return content
    return json.dumps({**document, "outputs": _requested(options.outputs, options.top)}).encode()


def _requested(names: Sequence[str], top: int) -> list[dict[str, Any]]:
    parameters = {"classification": top} if top else {}
    return [{"name": name, "parameters": {"binary_data": True, **parameters}} for name in names]


def _print_json(document: Mapping[str, Any], outputs: Sequence[Tensor]) -> None:
    tensors = [
        {
            "name": t.name,
            "datatype": t.datatype.value,
            "shape": list(t.array.shape),
            "data": _plain(t),
        }
        for t in outputs
    ]
    sys.stdout.write(json.dumps({**document, "outputs": tensors}) + "\n")


def _plain(tensor: Tensor) -> list[Any]:
    flat = tensor.array.reshape(-1)
    if tensor.datatype is Datatype.BYTES:
        return [item.decode(errors="backslashreplace") for item in flat]
    if tensor.datatype is Datatype.BF16:
        flat = flat.astype(np.float32)
    values: list[Any] = flat.tolist()
    return values


def _print_text(document: Mapping[str, Any], outputs: Sequence[Tensor]) -> None:
    lines = [f"{document.get('model_name', '')} version {document.get('model_version', '?')}"]
    for tensor in outputs:
        lines.append(f"{tensor.name} {tensor.datatype.value} {list(tensor.array.shape)}")
        lines += [f"  {line}" for line in _summary(tensor).splitlines()]
    sys.stdout.write("\n".join(lines) + "\n")


def _summary(tensor: Tensor) -> str:
    if tensor.datatype is Datatype.BYTES:
        texts = _plain(tensor)
        return "\n".join(texts[:_SHOWN_ELEMENTS]) + ("\n..." if len(texts) > _SHOWN_ELEMENTS else "")
    array = tensor.array.astype(np.float32) if tensor.datatype is Datatype.BF16 else tensor.array
    return np.array2string(
        array, _LINE_CHARACTERS, precision=6, threshold=_SHOWN_ELEMENTS, suppress_small=True
    )
