"""Rollouts over the administration port and the operator socket, both real; the rollouts are a fake."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import stat
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from gateway.admin.operator_socket import OperatorSocket
from gateway.admin.operators import SESSION_S, Sessions, user_actor
from gateway.admin.rollouts import RolloutParts
from gateway.admin.routes import AdminParts, admin_routes
from gateway.api.errors import ErrorTranslator
from gateway.commands.client import Address
from gateway.commands.failure import CommandFailed, Exit
from gateway.commands.rollout_client import RolloutClient
from gateway.commands.rollout_wait import Wait, wait
from gateway.core.errors import ConfigError, PermissionDenied
from gateway.core.rollout_control import Verb
from gateway.protocol.status import StatusProfile
from gateway.testing import VirtualClock
from gateway.transport.http import HttpServer
from gateway.transport.options import HttpServerOptions
from tests.admin.rollouts_fake import FakeRollouts
from tests.models.stage import Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from gateway.core.state import AuditEntry, AuditRecord

ME = pwd.getpwuid(os.getuid()).pw_name
FRAUD: dict[str, Any] = {"name": "fraud", "phase": "baking", "reason": "", "file": {"active_hash": "abc"}}


class NoAudit:
    """An AuditLog of which nothing is asked but that it be empty."""

    async def append(self, *entries: AuditEntry) -> AuditRecord:
        raise NotImplementedError

    def tail(self, count: int, rollout: str = "") -> list[AuditRecord]:
        return []


@dataclass
class Desk:
    """What operators have in front of them."""

    rollouts: FakeRollouts
    clock: VirtualClock
    socket: Path
    port: int

    @property
    def client(self) -> RolloutClient:
        return RolloutClient(Address(False, "127.0.0.1", self.port))

    async def run(self, call: Any, *arguments: Any, **named: Any) -> Any:
        """Call what blocks, as a command does."""
        return await asyncio.to_thread(call, *arguments, **named)

    async def post(
        self, path: str, headers: dict[str, str] | None = None, body: str = "{}"
    ) -> httpx.Response:
        async with httpx.AsyncClient() as client:
            url = f"http://127.0.0.1:{self.port}{path}"
            return await client.post(
                url, content=body, headers={"content-type": "application/json", **(headers or {})}
            )


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    clock = VirtualClock()
    rollouts, sessions = FakeRollouts(fraud=dict(FRAUD)), Sessions(clock.now_s)
    path = tmp_path / "run" / "operators.sock"
    async with AsyncExitStack() as stack:
        manager = await stack.enter_async_context(Stage().manager())
        parts = AdminParts(
            catalog=manager,
            version="0",
            guard=ErrorTranslator(StatusProfile.DEFAULT).http,
            rollouts=RolloutParts(rollouts, sessions, NoAudit(), path),
        )
        server = HttpServer(admin_routes(parts), HttpServerOptions(port=0))
        port = await server.start()
        stack.push_async_callback(server.stop, 0.0)
        await stack.enter_async_context(OperatorSocket(path, rollouts, sessions))
        yield Desk(rollouts, clock, path, port)


async def test_a_command_acts_as_the_user_who_runs_it(desk: Desk) -> None:
    """The socket is found by what the port says, and the kernel names the user and the groups."""
    document = await desk.run(desk.client.operate, "fraud", "approve", reason="looks fine", evidence="e1")
    (command,) = desk.rollouts.commands
    assert (command.rollout, command.verb) == ("fraud", Verb.APPROVE)
    assert (command.reason, command.evidence_hash) == ("looks fine", "e1")
    assert command.actor == user_actor(os.getuid(), os.getgid())
    assert (command.actor.name, command.actor.is_known) == (ME, True)
    assert document["name"] == "fraud"


async def test_over_http_nobody_is_known(desk: Desk) -> None:
    """A pause is taken from anybody who reaches the port, an approval is not."""
    assert (await desk.post("/rollouts/fraud/pause")).status_code == 200
    refused = await desk.post("/rollouts/fraud/approve")
    assert refused.status_code == 403
    (command,) = desk.rollouts.commands
    assert (command.verb, str(command.actor)) == (Verb.PAUSE, "anonymous:127.0.0.1")


async def test_a_session_is_its_user_until_it_expires(desk: Desk) -> None:
    """The page approves with what `login` gave over the socket; anything else in its place is refused."""
    secret = await desk.run(desk.client.login)
    assert (
        await desk.post("/rollouts/fraud/approve", {"authorization": f"Bearer {secret}"})
    ).status_code == 200
    assert desk.rollouts.commands[0].actor.name == ME
    wrong = await desk.post("/rollouts/fraud/pause", {"authorization": "Bearer guess"})
    desk.clock.advance(SESSION_S)
    late = await desk.post("/rollouts/fraud/approve", {"authorization": f"Bearer {secret}"})
    assert (wrong.status_code, late.status_code) == (403, 403)
    assert "gateway rollout login" in late.json()["error"]
    assert len(desk.rollouts.commands) == 1


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_what_a_page_of_another_origin_can_send_is_refused(desk: Desk, media_type: str) -> None:
    """Such a page can send these without asking."""
    reply = await desk.post("/rollouts/fraud/abort", {"content-type": media_type})
    assert reply.status_code == 400
    assert desk.rollouts.commands == []


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/rollouts/fraud/frobnicate", "{}", 400, "no verb 'frobnicate'; there are: pause, resume"),
        ("/rollouts/nobody/abort", "{}", 404, "no rollout 'nobody'"),
        ("/rollouts/fraud/abort", "[]", 400, "must be a JSON object"),
        ("/rollouts/fraud/abort", "{", 400, "is not JSON"),
        ("/rollouts/fraud/abort", '{"reason": 1}', 400, "'reason' must be text"),
        ("/rollouts/fraud/abort", '{"why": ""}', 400, "unknown members: 'why'"),
    ],
)
async def test_what_makes_no_sense(desk: Desk, path: str, body: str, status: int, words: str) -> None:
    """The answer says what would."""
    reply = await desk.post(path, body=body)
    assert reply.status_code == status
    assert words in reply.json()["error"]
    assert desk.rollouts.commands == []


async def test_changes_are_streamed(desk: Desk) -> None:
    """Every rollout first, then each that changes; a reader that goes is forgotten."""
    async with httpx.AsyncClient(timeout=30) as client:
        async with client.stream("GET", f"http://127.0.0.1:{desk.port}/rollouts/events") as stream:
            lines = stream.aiter_lines()
            first = await document_after(lines, "rollout")
            await document_after(lines, "now")
            await desk.rollouts.until_readers(1)
            desk.rollouts.change("fraud", phase="aborted")
            second = await document_after(lines, "rollout")
        assert (first["phase"], second["phase"]) == ("baking", "aborted")
    await desk.rollouts.until_readers(0)


async def document_after(lines: AsyncIterator[str], event: str) -> dict[str, Any]:
    async for line in lines:
        if line == f"event: {event}":
            data = await anext(lines)
            document = json.loads(data.removeprefix("data: "))
            assert isinstance(document, dict)
            return document
    raise AssertionError("the stream has ended")


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"\n", "expected one line of JSON"),
        (b"[" * 60_000 + b"\n", "expected one line of JSON"),
        (b"{}\n", "no verb ''"),
        (b'{"verb": "abort"}\n', "'rollout' must name one"),
        (b'{"verb": "abort", "rollout": "fr\\nd"}\n', "must be text in one line"),
        (b"x" * 70_000 + b"\n", "expected one line of JSON"),
    ],
)
async def test_nonsense_on_the_socket(desk: Desk, sent: bytes, words: str) -> None:
    """It is answered, and the next one is served."""
    reader, writer = await asyncio.open_unix_connection(desk.socket)
    writer.write(sent)
    answer = json.loads(await reader.readline())
    writer.close()
    await writer.wait_closed()
    assert words in answer["error"]
    assert await desk.run(desk.client.login)


async def test_who_may_connect(desk: Desk, tmp_path: Path) -> None:
    """The gateway's user and group; and nobody takes the place of a gateway that lives."""
    assert stat.S_IMODE(desk.socket.stat().st_mode) == 0o660
    with pytest.raises(ConfigError, match="another gateway serves it"):
        await OperatorSocket(desk.socket, desk.rollouts, Sessions(desk.clock.now_s)).__aenter__()
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ConfigError, match="no socket"):
        await OperatorSocket(tmp_path / "file", desk.rollouts, Sessions(desk.clock.now_s)).__aenter__()
    assert (tmp_path / "file").read_text() == "precious"


async def test_the_socket_of_a_gateway_that_was_killed_is_replaced(desk: Desk, tmp_path: Path) -> None:
    """What it left behind leads nowhere."""
    stale = tmp_path / "stale.sock"
    server = await asyncio.start_unix_server(lambda _reader, writer: writer.close(), stale)
    server.close()
    await server.wait_closed()
    async with OperatorSocket(stale, desk.rollouts, Sessions(desk.clock.now_s)):
        _, writer = await asyncio.open_unix_connection(stale)
        writer.close()
        await writer.wait_closed()
    assert not stale.exists()


async def test_wait_tells_what_became_of_it(desk: Desk) -> None:
    """Promotion returns, a withdrawal fails with its reason, an earlier file's end says nothing."""
    told: list[str] = []
    with pytest.raises(CommandFailed, match="was not over after 0 s: baking"):
        await desk.run(wait, desk.client, Wait("fraud", 0.0), told.append)
    desk.rollouts.change("fraud", phase="promoted")
    await desk.run(wait, desk.client, Wait("fraud", 0.0), told.append)
    with pytest.raises(CommandFailed, match="has not taken up this file"):
        await desk.run(wait, desk.client, Wait("fraud", 0.0, "other"), told.append)
    await desk.run(wait, desk.client, Wait("fraud", 0.0, "abc"), told.append)
    desk.rollouts.change("fraud", phase="aborted", reason="errors: 3.1 x stable's")
    with pytest.raises(CommandFailed, match="withdrawn: errors"):
        await desk.run(wait, desk.client, Wait("fraud", 0.0), told.append)
    assert told == ["baking", "promoted", "promoted", "aborted, errors: 3.1 x stable's"]


async def test_wait_for_a_file_that_is_new(desk: Desk) -> None:
    """A gateway that has not read it yet is given the time to; one that refuses it says why, at once."""
    new = Wait("new", 0.0, "def")
    with pytest.raises(CommandFailed, match="no rollout 'new'"):
        await desk.run(wait, desk.client, Wait("new", 60.0), lambda _: None)
    with pytest.raises(CommandFailed, match="after 0 s: the gateway has not taken up this file"):
        await desk.run(wait, desk.client, new, lambda _: None)
    file = {"path": "new.yaml", "hash": "abc", "active_hash": "", "error": "new.yaml:1: what is `stps`?"}
    desk.rollouts.read = [file]
    with pytest.raises(CommandFailed, match="has not taken up this file"):
        await desk.run(wait, desk.client, new, lambda _: None)
    desk.rollouts.read = [{**file, "hash": "def"}]
    with pytest.raises(CommandFailed, match="'new' does not begin: new"):
        await desk.run(wait, desk.client, Wait("new", 60.0, "def"), lambda _: None)
    desk.rollouts.documents["new"] = {"phase": "promoted", "file": {"active_hash": "def"}}
    await desk.run(wait, desk.client, new, lambda _: None)


async def test_a_port_that_knows_no_rollouts(desk: Desk) -> None:
    """The message says what may be wrong."""
    other = HttpServer([], HttpServerOptions(port=0))
    port = await other.start()
    try:
        with pytest.raises(CommandFailed, match="section 'rollouts'"):
            await desk.run(RolloutClient(Address(False, "127.0.0.1", port)).index)
    finally:
        await other.stop(0.0)
    with pytest.raises(CommandFailed, match="--admin-url") as nobody:
        await desk.run(RolloutClient(Address(False, "127.0.0.1", port)).index)
    assert nobody.value.code is Exit.UNREACHABLE


def test_a_session_that_never_was() -> None:
    """It is refused, rather than taken for somebody unknown."""
    sessions = Sessions(VirtualClock().now_s)
    with pytest.raises(PermissionDenied):
        sessions.actor({"authorization": "Bearer x"}, "1.2.3.4")
    assert not sessions.actor({}, "1.2.3.4").is_known
