"""Asks a running gateway about its rollouts, and acts on them, over its operator socket where it can."""

from __future__ import annotations

import contextlib
import json
import socket
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from gateway.commands.client import GatewayClient, Reply, raise_for_status
from gateway.commands.failure import CommandFailed, Exit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.commands.client import Address

APPROVE: Final = "approve"
_TIMEOUT_S: Final = 15.0
_MAX_ANSWER: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class RolloutClient:
    """A gateway's rollouts, by its administration port.

    Attributes:
        admin: the port.
        operator_socket: on this host; None: where the gateway says it is.
    """

    admin: Address
    operator_socket: Path | None = None

    def index(self) -> dict[str, Any]:
        """Return every rollout, file and split.

        Raises:
            CommandFailed: nobody answers there, or it is no gateway with rollouts.
        """
        return _document(self._get("/rollouts"), self.admin)

    def rollout(self, name: str) -> dict[str, Any]:
        """Return one rollout's document with its audit records; raises as `index`, and if there is none."""
        return _document(self._get(_path(name)), self.admin)

    def find(self, name: str) -> dict[str, Any] | None:
        """Return the same, None if there is none."""
        reply = self._get(_path(name))
        return None if _knows_no_such(reply) else _document(reply, self.admin)

    def operate(self, name: str, verb: str, *, reason: str = "", evidence: str = "") -> dict[str, Any]:
        """Ask for `verb`; return the rollout's document afterwards.

        Over the operator socket if it is on this host, else over the administration port, where nobody knows
        who asks; an approval needs the socket.

        Raises:
            CommandFailed: it was refused; the message says why.
        """
        wish = {"reason": reason, "evidence": evidence}
        members = {member: text for member, text in wish.items() if text}
        path = self._socket()
        if path is not None:
            answer = exchange(path, {"verb": verb, "rollout": name, **members})
            return dict(answer["rollout"])
        if verb == APPROVE:
            raise CommandFailed(
                "an approval must come from a user of the gateway's host: run this there, "
                "with --operator-socket if the socket is elsewhere"
            )
        with GatewayClient(self.admin, _TIMEOUT_S) as client:
            path_of_verb = f"{_path(name)}/{verb}"
            headers = {"content-type": "application/json"}
            reply = client.request("POST", path_of_verb, json.dumps(members).encode(), headers)
        return _document(reply, self.admin)

    def login(self) -> str:
        """Open a session on the gateway's page as the user who runs this, and return its secret.

        Raises:
            CommandFailed: the operator socket is not on this host, or refuses.
        """
        path = self._socket()
        if path is None:
            raise CommandFailed("a session is opened on the gateway's host: its operator socket is not here")
        return str(exchange(path, {"verb": "login"})["session"])

    def _socket(self) -> Path | None:
        if self.operator_socket is not None:
            return self.operator_socket
        path = Path(str(self.index().get("operator_socket") or "/nonexistent"))
        return path if path.is_socket() else None

    def _get(self, path: str) -> Reply:
        with self._named(), GatewayClient(self.admin, _TIMEOUT_S) as client:
            return client.request("GET", path)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Name the option that says where administration is, if nobody answers there."""
        try:
            yield
        except CommandFailed as exc:
            if exc.code is not Exit.UNREACHABLE:
                raise
            raise CommandFailed(str(exc).replace("--url", "--admin-url"), exc.code) from exc


def exchange(path: Path, request: dict[str, str]) -> dict[str, Any]:
    """Send one request over an operator socket and return the answer.

    Raises:
        CommandFailed: nobody answers, this user may not connect, or the gateway refuses.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer = json.loads(lines.readline(_MAX_ANSWER))
    except PermissionError as exc:
        raise CommandFailed(
            f"operator socket {path}: you may not connect; it is for the gateway's user and group"
        ) from exc
    except (OSError, ValueError) as exc:
        raise CommandFailed(f"operator socket {path}: {exc}", Exit.UNREACHABLE) from exc
    if not isinstance(answer, dict) or "error" in answer:
        raise CommandFailed(str(answer.get("error") if isinstance(answer, dict) else answer))
    return answer


def _path(name: str) -> str:
    return f"/rollouts/{quote(name, safe='')}"


def _has_no_rollouts(reply: Reply) -> bool:
    return reply.status == HTTPStatus.NOT_FOUND and b'"Not Found"' in reply.body


def _knows_no_such(reply: Reply) -> bool:
    return reply.status == HTTPStatus.NOT_FOUND and not _has_no_rollouts(reply)


def _document(reply: Reply, admin: Address) -> dict[str, Any]:
    if _has_no_rollouts(reply):
        raise CommandFailed(
            f"{admin.url} knows no rollouts: is it the administration port, 8003 by default, and does the "
            "configuration have a section 'rollouts'?"
        )
    raise_for_status(reply)
    document = reply.json()
    if not isinstance(document, dict):
        raise CommandFailed(f"{admin.url} does not answer as a gateway does")
    return document
