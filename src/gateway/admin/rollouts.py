"""Rollouts on the administration port: documents, what operators ask for, and a stream of changes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from gateway.admin.json_text import json_answer
from gateway.admin.operator_socket import command_of
from gateway.core.calls import HttpResponse
from gateway.core.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from gateway.admin.operators import Sessions
    from gateway.core.calls import HttpRequest
    from gateway.core.rollout_control import RolloutControl
    from gateway.core.state import AuditLog, AuditRecord

HEARTBEAT_S: Final = 15.0
"""Proxies close streams on which nothing comes for a minute."""
_RECORDS: Final = 200


@dataclass(frozen=True, slots=True)
class RolloutParts:
    """What administration shows of rollouts, and acts on.

    Attributes:
        rollouts: the rollouts.
        sessions: who sends a request.
        audit: what has happened.
        operator_socket: where this host's users are known.
    """

    rollouts: RolloutControl
    sessions: Sessions
    audit: AuditLog
    operator_socket: Path


class RolloutHttp:
    """Handlers about rollouts; each answers with a response or raises a GatewayError.

    A verb needs `Content-Type: application/json`: a page of another origin can send that only after asking,
    and this port allows no other origin anything.

    Args:
        parts: what they show and act on.
        wall_s: wall-clock seconds since the epoch.
    """

    def __init__(self, parts: RolloutParts, wall_s: Callable[[], float]) -> None:
        self._rollouts = parts.rollouts
        self._sessions = parts.sessions
        self._audit = parts.audit
        self._socket = parts.operator_socket
        self._wall_s = wall_s

    async def index(self, _request: HttpRequest) -> HttpResponse:
        """Show every rollout, file and plain split."""
        rollouts = self._rollouts
        return json_answer(
            {
                "now": self._wall_s(),
                "operator_socket": str(self._socket),
                "rollouts": list(rollouts.rollouts()),
                "files": list(rollouts.files()),
                "splits": list(rollouts.splits()),
            }
        )

    async def show(self, request: HttpRequest) -> HttpResponse:
        """Show one rollout, with the newest records about it."""
        name = request.path_params["rollout"]
        document = self._rollouts.rollout(name)
        records = [_record(record) for record in self._audit.tail(_RECORDS, name)]
        return json_answer({"now": self._wall_s(), **document, "audit": records})

    async def operate(self, request: HttpRequest) -> HttpResponse:
        """Do what an operator asks."""
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise InvalidRequest("send a JSON object with Content-Type: application/json")
        actor = self._sessions.actor(request.headers, request.peer.rpartition(":")[0])
        path = request.path_params
        command = command_of({**_object(request), "verb": path["verb"], "rollout": path["rollout"]}, actor)
        return json_answer({"now": self._wall_s(), **await self._rollouts.operate(command)})

    async def events(self, _request: HttpRequest) -> HttpResponse:
        """Stream every rollout's document, then each that changes, as server-sent events."""
        return HttpResponse(
            200,
            content_type="text/event-stream; charset=utf-8",
            headers=(("cache-control", "no-store"), ("x-accel-buffering", "no")),
            compressible=False,
            stream=_events(self._rollouts, self._wall_s),
        )


async def _events(rollouts: RolloutControl, wall_s: Callable[[], float]) -> AsyncIterator[bytes]:
    """Give `event: rollout` with a document each, and a `now` when nothing has come for a while."""
    changes = rollouts.changes()
    coming: asyncio.Future[dict[str, Any]] | None = None
    try:
        for document in rollouts.rollouts():
            yield _event("rollout", document)
        yield _event("now", {"now": wall_s()})
        while True:
            if coming is None:
                coming = asyncio.ensure_future(anext(changes))
            done, _ = await asyncio.wait({coming}, timeout=HEARTBEAT_S)
            if not done:
                yield _event("now", {"now": wall_s()})
                continue
            changed, coming = coming, None
            try:
                document = changed.result()
            except StopAsyncIteration:
                return
            yield _event("rollout", document)
    finally:
        if coming is not None:
            coming.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await coming
        close = getattr(changes, "aclose", None)
        if close is not None:
            await close()


def _event(name: str, document: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(document))


def _object(request: HttpRequest) -> dict[str, Any]:
    if not request.body:
        return {}
    try:
        document = orjson.loads(bytes(request.body))
    except ValueError as error:
        raise InvalidRequest("the body is not JSON") from error
    if not isinstance(document, dict):
        raise InvalidRequest("the body must be a JSON object")
    return document


def _record(record: AuditRecord) -> dict[str, Any]:
    entry = record.entry
    return {
        "seq": record.seq,
        "at": record.at,
        "hash": record.hash,
        "kind": entry.kind,
        "what": entry.what,
        "who": entry.who,
        "detail": dict(entry.detail),
    }
