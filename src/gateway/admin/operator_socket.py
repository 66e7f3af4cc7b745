"""The Unix socket on which operators are who the system says they are.

One line of JSON in, one out, one exchange per connection:
`{"verb": "approve", "rollout": "fraud", "reason": "...", "evidence": "..."}` answers `{"rollout": {...}}`,
`{"verb": "login"}` answers `{"session": "..."}`, and what goes wrong `{"error": "...", "kind": "NotFound"}`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from gateway.admin.operators import peer_actor
from gateway.core.errors import ConfigError, GatewayError, InvalidRequest
from gateway.core.rollout_control import Command, Verb

if TYPE_CHECKING:
    import socket
    from pathlib import Path
    from types import TracebackType

    from gateway.admin.operators import Sessions
    from gateway.core.rollout_control import Actor, RolloutControl

_log = logging.getLogger(__name__)

LOGIN: Final = "login"
MODE: Final = 0o660
"""The gateway's own user and group may connect; roles in rollout files say who may approve."""
_MAX_LINE: Final = 64 << 10
_PATIENCE_S: Final = 10.0
_MAX_TEXT: Final = 2000
_MAX_PATH: Final = 107  # of a Unix socket's address


class OperatorSocket:
    """Serves the socket while entered; removes it at the end.

    Args:
        path: where; its directory is made. A socket that nobody serves any more is replaced.
        rollouts: what operators act on.
        sessions: opened by `login`.
    """

    def __init__(self, path: Path, rollouts: RolloutControl, sessions: Sessions) -> None:
        self._path = path
        self._rollouts = rollouts
        self._sessions = sessions
        self._server: asyncio.Server | None = None
        self._exchanges: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Bind and serve.

        Raises:
            ConfigError: the path cannot be bound, is no socket, or another gateway serves it.
        """
        path = self._path
        if len(os.fsencode(path)) > _MAX_PATH:
            raise ConfigError(f"operator socket {path}: the path is longer than {_MAX_PATH} bytes")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            await self._replace()
            self._server = await asyncio.start_unix_server(self._serve, path, limit=_MAX_LINE)
            path.chmod(MODE)
        except OSError as error:
            raise ConfigError(f"operator socket {path}: {error.strerror or error}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving; exchanges under way are broken off."""
        if self._server is not None:
            self._server.close()
        for task in self._exchanges:
            task.cancel()
        await asyncio.gather(*self._exchanges, return_exceptions=True)
        with suppress(OSError):
            self._path.unlink()

    async def _replace(self) -> None:
        """Remove what a gateway that was killed has left, and nothing else."""
        try:
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                raise ConfigError(f"operator socket {self._path}: there is a file that is no socket")
        except FileNotFoundError:
            return
        try:
            _, writer = await asyncio.open_unix_connection(self._path)
        except OSError:
            self._path.unlink(missing_ok=True)
            return
        await _close(writer)
        raise ConfigError(f"operator socket {self._path}: another gateway serves it")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._exchanges.add(task)
        try:
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(_PATIENCE_S):
                    answer = await self._answer(reader, writer.get_extra_info("socket"))
                    writer.write(json.dumps(answer).encode() + b"\n")
                    await writer.drain()
        finally:
            self._exchanges.discard(task)
            await _close(writer)

    async def _answer(self, reader: asyncio.StreamReader, connection: socket.socket) -> dict[str, Any]:
        try:
            actor = peer_actor(connection)
            return await self._do(await _request(reader), actor)
        except GatewayError as error:
            return {"error": str(error), "kind": type(error).__name__}
        except OSError:
            raise
        except Exception:  # noqa: BLE001 - logged; the operator must get an answer
            _log.exception("an operator's wish failed")
            return {"error": "internal error; the gateway's log has it", "kind": "GatewayError"}

    async def _do(self, request: dict[str, Any], actor: Actor) -> dict[str, Any]:
        if request.get("verb") == LOGIN:
            return {"session": self._sessions.open(actor), "user": actor.name}
        return {"rollout": await self._rollouts.operate(command_of(request, actor))}


def command_of(request: dict[str, Any], actor: Actor) -> Command:
    """Return the command that a request's members make.

    Raises:
        InvalidRequest: they make none.
    """
    unknown = sorted(request.keys() - {"verb", "rollout", "reason", "evidence"})
    if unknown:
        raise InvalidRequest(f"unknown members: {', '.join(map(repr, unknown))[:_MAX_TEXT]}")
    texts = {name: request.get(name, "") for name in ("verb", "rollout", "reason", "evidence")}
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > _MAX_TEXT or not text.isprintable():
            raise InvalidRequest(f"'{name}' must be text in one line of at most {_MAX_TEXT} characters")
    try:
        verb = Verb(texts["verb"])
    except ValueError:
        verbs = ", ".join(v.value for v in Verb)
        raise InvalidRequest(f"no verb '{texts['verb'][:40]}'; there are: {verbs}") from None
    if not texts["rollout"]:
        raise InvalidRequest("'rollout' must name one")
    return Command(texts["rollout"], verb, actor, texts["reason"], texts["evidence"])


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def _request(reader: asyncio.StreamReader) -> dict[str, Any]:
    try:
        document = json.loads(await reader.readline())
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("expected one line of JSON") from error
    if not isinstance(document, dict):
        raise InvalidRequest("expected a JSON object")
    return document
