"""Sends one request to a server and returns its answer: to see that it is ready, and what it answers."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any, cast

import grpc

from loadtests.peers.base import HTTP_PROTOCOLS, WireAnswer

if TYPE_CHECKING:
    from loadtests.peers.base import WireRequest

_ANSWER_S = 30.0
_ANY_SIZE = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class NoAnswer(Exception):
    """A request was refused, failed, or met nobody; the message says which."""


def ask(
    protocol: str, address: tuple[str, int], request: WireRequest, timeout_s: float = _ANSWER_S
) -> WireAnswer:
    """Return the good answer to one request on a connection of its own.

    Raises:
        NoAnswer: there is none.
    """
    return (_ask_http if protocol in HTTP_PROTOCOLS else _ask_grpc)(protocol, address, request, timeout_s)


def _ask_http(_protocol: str, address: tuple[str, int], request: WireRequest, timeout_s: float) -> WireAnswer:
    connection = HTTPConnection(*address, timeout=timeout_s)
    try:
        connection.request(request.method, request.path, request.body, dict(request.headers))
        response = connection.getresponse()
        body = response.read()
    except (OSError, HTTPException) as exc:
        raise NoAnswer(f"{request.path}: {exc!r}") from exc
    finally:
        connection.close()
    if response.status != 200:
        raise NoAnswer(f"{request.path} was answered with {response.status}: {body[:300]!r}")
    return WireAnswer({name.lower(): value for name, value in response.getheaders()}, body)


def _ask_grpc(protocol: str, address: tuple[str, int], request: WireRequest, timeout_s: float) -> WireAnswer:
    host, port = address
    metadata = tuple(request.headers)
    try:
        with grpc.insecure_channel(f"{host}:{port}", _ANY_SIZE) as channel:
            if protocol == "grpc":
                unary: Any = channel.unary_unary(request.path)
                return WireAnswer(
                    {}, cast("bytes", unary(request.body, timeout=timeout_s, metadata=metadata))
                )
            stream: Any = channel.stream_stream(request.path)
            answers = stream(iter((request.body,)), timeout=timeout_s, metadata=metadata)
            return WireAnswer({}, cast("bytes", next(answers)))
    except grpc.RpcError as exc:
        failed: Any = exc
        raise NoAnswer(f"{request.path}: {failed.code()}: {failed.details()}") from exc
    except StopIteration as exc:
        raise NoAnswer(f"{request.path}: the stream ended without an answer") from exc
