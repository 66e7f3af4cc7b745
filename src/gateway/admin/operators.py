"""Who operators are: users that the operating system vouches for, and sessions that they have opened."""

from __future__ import annotations

import grp
import pwd
import secrets
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from os import getgrouplist
from typing import TYPE_CHECKING, Final

from gateway.core.errors import PermissionDenied
from gateway.core.rollout_control import Actor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SESSION_S: Final = 8 * 3600.0
"""A session opened in the morning lasts the working day."""
_MOST_SESSIONS: Final = 1000
_BEARER: Final = "Bearer "


@dataclass(frozen=True, slots=True)
class _Session:
    actor: Actor
    until_s: float


class Sessions:
    """Sessions of users who have shown who they are; in memory only, a restart ends them.

    Args:
        now_s: monotonic seconds.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._sessions: dict[bytes, _Session] = {}

    def open(self, actor: Actor) -> str:
        """Return the secret of a new session; whoever has it acts as `actor` until it expires."""
        self._forget_expired()
        while len(self._sessions) >= _MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        secret = secrets.token_urlsafe(32)
        self._sessions[_digest(secret)] = _Session(actor, self._now_s() + SESSION_S)
        return secret

    def actor(self, headers: Mapping[str, str], peer: str) -> Actor:
        """Return who sends a request: the session's user, or somebody at `peer` if it names no session.

        Raises:
            PermissionDenied: it names a session that has expired or never was.
        """
        authorization = headers.get("authorization", "")
        if not authorization:
            return Actor(peer or "unknown", is_known=False)
        session = self._sessions.get(_digest(authorization.removeprefix(_BEARER)))
        if session is None or session.until_s <= self._now_s():
            raise PermissionDenied("this session is over; open another with: gateway rollout login")
        return session.actor

    def _forget_expired(self) -> None:
        now_s = self._now_s()
        for key in [key for key, session in self._sessions.items() if session.until_s <= now_s]:
            del self._sessions[key]


def peer_actor(connection: socket.socket) -> Actor:
    """Return the user at the other end of a Unix socket, as the kernel knows it.

    Raises:
        PermissionDenied: the kernel does not say.
    """
    try:
        size = struct.calcsize("3i")
        _pid, uid, gid = struct.unpack(
            "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        )
    except (OSError, struct.error) as error:
        raise PermissionDenied("the system does not say which user this is") from error
    return user_actor(uid, gid)


def user_actor(uid: int, gid: int) -> Actor:
    """Return a user of this system; one without a name is `uid 1234`, and in no named group."""
    try:
        user = pwd.getpwuid(uid).pw_name
        groups = getgrouplist(user, gid)
    except KeyError:
        user, groups = f"uid {uid}", [gid]
    names: set[str] = set()
    for group in groups:
        with suppress(KeyError):
            names.add(grp.getgrgid(group).gr_name)
    return Actor(user, is_known=True, roles=frozenset(names))


def _digest(secret: str) -> bytes:
    # Looked up by digest, so that the time of a look-up tells nothing of the secrets there are.
    return sha256(secret.encode()).digest()
