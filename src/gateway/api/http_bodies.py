"""JSON bodies of the HTTP methods that carry no tensors: reading with checks, writing."""

from __future__ import annotations

import asyncio
import binascii
from typing import TYPE_CHECKING, Any, Final

import orjson

from gateway.api.operations import FILE_PREFIX, load_parameter
from gateway.core.calls import HttpResponse
from gateway.core.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.api.settings import LogValues, TraceValues
    from gateway.core.calls import Buffer, Headers

# Decoding one piece takes about a millisecond, so that a large file does not stall the event loop.
_BASE64_PIECE: Final = 1 << 20


def json_response(value: object, status: int = 200, headers: Headers = ()) -> HttpResponse:
    """Return a response with `value` as JSON, never compressed; text that is not valid Unicode is mended.

    tritonclient.http.aio announces gzip on every call, but undoes it on inference responses alone.
    """
    try:
        body = orjson.dumps(value)
    except TypeError:
        body = orjson.dumps(_mended(value))
    return HttpResponse(status, (body,), headers=headers, compressible=False)


def _mended(value: object) -> object:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mended(item) for item in value]
    return value


def json_object(body: Buffer) -> Mapping[str, Any]:
    """Read a body that is a JSON object or empty.

    Raises:
        InvalidRequest: it is neither.
    """
    if not body:
        return {}
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the request body is no valid JSON: {error.msg} at byte {error.pos}") from error
    if not isinstance(value, dict):
        raise InvalidRequest("the request body must be a JSON object")
    return value


def boolean(value: object, name: str) -> bool:
    """Check that a JSON value is true or false.

    Raises:
        InvalidRequest: it is not.
    """
    if not isinstance(value, bool):
        raise InvalidRequest(f"'{name}' must be true or false")
    return value


def parameters_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the object under `parameters`, empty when there is none.

    Raises:
        InvalidRequest: it is no object.
    """
    parameters = body.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidRequest("'parameters' must be a JSON object")
    return parameters


def trace_changes(body: Mapping[str, Any]) -> TraceValues:
    """Read trace settings: text, an integer or a list of text each; null puts one back.

    Raises:
        InvalidRequest: a value of another kind.
    """
    return {name: _trace_values(name, value) for name, value in body.items()}


def _trace_values(name: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, int) and not isinstance(value, bool):
        return (str(value),)
    values = value if isinstance(value, list) and value else [value]
    if not all(isinstance(item, str) for item in values):
        raise InvalidRequest(f"trace setting '{name}' takes a string, an integer, a list of strings or null")
    return tuple(values)


def trace_json(values: TraceValues) -> Mapping[str, object]:
    """Return trace settings as Triton shows them: the level as a list, everything else as text."""
    return {name: list(v) if name == "trace_level" else ",".join(v) for name, v in values.items()}


def log_changes(body: Mapping[str, Any]) -> LogValues:
    """Read log settings.

    Raises:
        InvalidRequest: a value that is neither a boolean, an integer nor text.
    """
    for name, value in body.items():
        if not isinstance(value, (bool, int, str)):
            raise InvalidRequest(f"log setting '{name}' takes a boolean, an integer or a string")
    return body


async def load_parameters(body: Mapping[str, Any]) -> tuple[str, dict[str, bytes]]:
    """Read the parameters of a load: the config, and path -> content of the files.

    Raises:
        InvalidRequest: an unknown parameter, a value of the wrong kind, or content that is no base64.
    """
    config, files = "", dict[str, bytes]()
    for name, value in parameters_of(body).items():
        load_parameter(name, is_text=isinstance(value, str), is_file=isinstance(value, str))
        if name.startswith(FILE_PREFIX):
            files[name.removeprefix(FILE_PREFIX)] = await _base64(name, value)
        else:
            config = value
    return config, files


async def _base64(name: str, text: str) -> bytes:
    content = bytearray()
    try:
        encoded = text.encode("ascii")
        for start in range(0, len(encoded), _BASE64_PIECE):
            piece = encoded[start : start + _BASE64_PIECE]
            if content:
                await asyncio.sleep(0)
            if b"=" in piece and start + len(piece) < len(encoded):
                raise binascii.Error("padding before the end")
            content += binascii.a2b_base64(piece, strict_mode=True)
    except ValueError as error:  # binascii.Error and UnicodeEncodeError are both
        raise InvalidRequest(f"load parameter '{name[:80]}' is no valid base64: {error}") from error
    return bytes(content)
