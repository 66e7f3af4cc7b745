"""The page about rollouts: static files of this package, and whose session a page has."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Final

from gateway.admin.json_text import json_answer
from gateway.core.calls import HttpResponse
from gateway.core.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.admin.operators import Sessions
    from gateway.core.calls import Headers, HttpRequest

_INDEX: Final = "index.html"
_TYPES: Final[Mapping[str, str]] = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
_POLICY: Final = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
PAGE_HEADERS: Final[Headers] = (
    ("content-security-policy", _POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
)
"""What files and registries say is shown here, beside buttons that act: no script but the page's own."""


class RolloutPage:
    """Handlers that serve the page; every file is read once, when this is made.

    Args:
        sessions: who has opened one.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        folder = files("gateway.admin").joinpath("page")
        self._files = {
            entry.name: entry.read_bytes()
            for entry in folder.iterdir()
            if entry.name.rpartition(".")[2] in _TYPES
        }

    async def index(self, _request: HttpRequest) -> HttpResponse:
        """Serve the page itself."""
        return self._served(_INDEX)

    async def file(self, request: HttpRequest) -> HttpResponse:
        """Serve one of its files."""
        return self._served(request.path_params["file"])

    async def session(self, request: HttpRequest) -> HttpResponse:
        """Say whose session it is that a request names; `user` is empty when it names none."""
        actor = self._sessions.actor(request.headers, request.peer.rpartition(":")[0])
        return json_answer({"user": actor.name if actor.is_known else ""})

    def _served(self, name: str) -> HttpResponse:
        if name not in self._files:
            raise NotFound(f"the page has no file '{name}'")
        media_type = _TYPES[name.rpartition(".")[2]]
        return HttpResponse(200, (self._files[name],), content_type=media_type, headers=PAGE_HEADERS)
