"""What Triton's failures mean: for the endpoint, for a retry, and in words that a client may see.

Triton tells by status code less than it knows: a full queue, a version that is not loaded and a server that
stops are all UNAVAILABLE, and on a stream an error has no code at all. Its texts are looked at therefore, as
core/src/dynamic_batch_scheduler.cc, model_repository_manager and infer_request.cc write them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio

from gateway.core.errors import BackendError, GatewayError, InvalidRequest, Unsupported
from gateway.core.remote import AttemptError, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHOWN: Final = 500
_PUSHBACK: Final = "grpc-retry-pushback-ms"

_REQUEST_ID: Final = re.compile(r"\[request id: [^\]]*\] ?")
_ADDRESS: Final = re.compile(
    r"(?:ipv[46]:|unix:)\S+|\[[0-9a-fA-F:]{2,}\](?::\d+)?|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"
    r"|\b[A-Za-z][\w-]*(?:\.[\w-]+)+:\d+\b|\b[A-Za-z][\w-]*:\d{4,5}\b"
)
_PATH: Final = re.compile(r"(?<![\w.])(?:/[\w.@+~-]+){2,}/?|\b(?:s3|gs|as|hf)://\S+")

_NOT_LOADED: Final = re.compile(
    r"request for unknown model|is not at ready state|has no available versions|is not ready\b", re.IGNORECASE
)
_QUEUE_FULL: Final = re.compile(r"exceeds maximum queue size|request timeout expired", re.IGNORECASE)
_NOT_CONNECTED: Final = re.compile(
    r"failed to connect|connection refused|no route to host|name resolution|dns|"
    r"connections to all backends failing|handshake|network is unreachable|connect deadline",
    re.IGNORECASE,
)
_STOPPING: Final = re.compile(r"server is stopping|server not ready|server exiting", re.IGNORECASE)
_RESTRICTED: Final = re.compile(r"protocol is restricted", re.IGNORECASE)
_TOO_LARGE: Final = re.compile(r"message (?:is )?larger than max", re.IGNORECASE)
_TRANSPORT: Final = re.compile(r"RST_STREAM|stream removed|socket closed|goaway", re.IGNORECASE)
_NO_REGION: Final = re.compile(r"unable to find shared memory region|shared memory", re.IGNORECASE)
_REQUESTS_FAULT: Final = re.compile(
    r"unexpected (?:shape|inference|datatype|total byte|explicit|number of)|"
    r"inference request (?:batch-size|to model|for sequence)|input byte size|data-type is|"
    r"expected \d+ inputs|missing required|invalid argument",
    re.IGNORECASE,
)


class ModelFailed(AttemptError):
    """The model itself answered with an error: the endpoint may be broken, or the request's data be to blame.

    One endpoint alone cannot tell. A second one that says the same can.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, Outcome.FAILED)


class VersionNotThere(AttemptError):
    """The endpoint does not have the version, whatever was known before; nothing was run."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Outcome.FAILED, sent=False)


class RegionUnknown(GatewayError):
    """The endpoint does not know a shared memory region (any more); nothing was run."""


def clean(text: str, *, of: str = "", name: str = "") -> str:
    """Return an endpoint's text for clients: one line, without addresses, paths and its name of the model.

    Args:
        text: as it came.
        of: the model's name on the endpoint, replaced.
        name: the public name.
    """
    text = _REQUEST_ID.sub("", " ".join(text.split()))
    text = _ADDRESS.sub("<address>", _PATH.sub("<path>", text))
    if of and name:
        text = text.replace(f"'{of}'", f"'{name}'")
    return text[:_SHOWN]


def pushback_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> float | None:
    """Return for how many seconds an endpoint wants no retry; negative for ever; None if it says nothing.

    As in gRFC A6, a value that is no number means no retry at all.
    """
    for key, value in metadata or ():
        if key == _PUSHBACK:
            try:
                return int(value) / 1000
            except ValueError:
                return -1.0
    return None


def of_status(
    code: grpc.StatusCode, details: str, *, model: str, name: str, pushback_s: float | None = None
) -> GatewayError:
    """Return the error for a call that ended with a status.

    Args:
        code: the status.
        details: its text.
        model: the model's name on Triton.
        name: the public name, for messages; empty where no client reads them.
        pushback_s: as `pushback_of`.
    """
    text = clean(details, of=model, name=name)
    said = f"model '{name}': {text}"
    if _NOT_LOADED.search(details) and code in _VERSION_CODES:
        return VersionNotThere("the version is not loaded there")
    if _NO_REGION.search(details) and code is grpc.StatusCode.NOT_FOUND:
        return RegionUnknown(said)
    if code is grpc.StatusCode.UNAVAILABLE:
        return _unavailable(details, text if not name else _for_clients(details, text), pushback_s)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        if _TOO_LARGE.search(details):
            return BackendError(f"{said}: the endpoint takes no message of this size")
        return AttemptError(text, Outcome.REFUSED, sent=False, pushback_s=pushback_s)
    if code is grpc.StatusCode.INTERNAL and not _TRANSPORT.search(details):
        return ModelFailed(text)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return AttemptError("no answer in time", Outcome.TIMED_OUT, pushback_s=pushback_s)
    if kind := _OF_THE_REQUEST.get(code):
        return kind(said)
    unsent = code in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
    return AttemptError(text, Outcome.FAILED, sent=not unsent, pushback_s=pushback_s)


def in_band(text: str, *, model: str, name: str) -> GatewayError:
    """Return the error for an error message on a stream, which has a text and no code."""
    said = clean(text, of=model, name=name)
    if _NOT_LOADED.search(text):
        return VersionNotThere("the version is not loaded there")
    if _QUEUE_FULL.search(text):
        return AttemptError(said, Outcome.REFUSED, sent=False)
    if _STOPPING.search(text):
        return AttemptError(said, Outcome.FAILED, sent=False)
    if _REQUESTS_FAULT.search(text):
        return InvalidRequest(f"model '{name}': {said}")
    return ModelFailed(said)


def ended_there(error: BaseException | None) -> bool:
    """Whether the endpoint has surely done with a call: it answered it itself, nobody gave up on it."""
    if not isinstance(error, grpc.aio.AioRpcError):
        return False
    code, details = error.code(), error.details() or ""
    return code in _ANSWERS and not _TRANSPORT.search(details)


def _for_clients(details: str, text: str) -> str:
    """Return the text without why no connection came about: names in certificates, say. Probes tell that."""
    return "no connection" if _NOT_CONNECTED.search(details) else text


def _unavailable(details: str, text: str, pushback_s: float | None) -> AttemptError:
    if _QUEUE_FULL.search(details):
        return AttemptError(text, Outcome.REFUSED, sent=False, pushback_s=pushback_s)
    # A text that a model's own code wrote may say anything; these are written before anything runs.
    unsent = any(p.search(details) for p in (_NOT_CONNECTED, _STOPPING, _RESTRICTED))
    return AttemptError(text, Outcome.FAILED, sent=not unsent, pushback_s=pushback_s)


_VERSION_CODES: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION}
)
_OF_THE_REQUEST: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.ALREADY_EXISTS: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: BackendError,
    grpc.StatusCode.UNIMPLEMENTED: Unsupported,
}
_ANSWERS: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.ALREADY_EXISTS,
    }
)
