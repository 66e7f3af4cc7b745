"""The pages about rollouts and fleets: static files of this package, and whose session a page has."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Final

from gateway.admin.json_text import json_answer
from gateway.core.calls import HttpResponse
from gateway.core.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.admin.operators import Sessions
    from gateway.core.calls import Headers, HttpRequest

_PLACE: Final = b"<nav></nav>"
_NAMES: Final[Mapping[str, str]] = {"rollouts": "Rollouts", "fleets": "Fleets"}
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


class Page:
    """Handlers that serve a page; every file is read once, when this is made.

    Args:
        index: its HTML file.
        others: pages that it has links to, by the first part of their paths.
    """

    def __init__(self, index: str, others: Sequence[str] = ()) -> None:
        folder = files("gateway.admin").joinpath("page")
        self._files = {
            entry.name: entry.read_bytes()
            for entry in folder.iterdir()
            if entry.name.rpartition(".")[2] in _TYPES
        }
        self._index = index
        self._files[index] = self._files[index].replace(_PLACE, _links(others))

    async def index(self, _request: HttpRequest) -> HttpResponse:
        """Serve the page itself."""
        return self._served(self._index)

    async def file(self, request: HttpRequest) -> HttpResponse:
        """Serve one of its files."""
        return self._served(request.path_params["file"])

    def _served(self, name: str) -> HttpResponse:
        if name not in self._files:
            raise NotFound(f"the page has no file '{name}'")
        media_type = _TYPES[name.rpartition(".")[2]]
        return HttpResponse(200, (self._files[name],), content_type=media_type, headers=PAGE_HEADERS)


class RolloutPage(Page):
    """The page about rollouts.

    Args:
        sessions: who has opened one.
        others: pages that it has links to.
    """

    def __init__(self, sessions: Sessions, others: Sequence[str] = ()) -> None:
        super().__init__("rollouts.html", others)
        self._sessions = sessions

    async def session(self, request: HttpRequest) -> HttpResponse:
        """Say whose session it is that a request names; `user` is empty when it names none."""
        actor = self._sessions.actor(request.headers, request.peer.rpartition(":")[0])
        return json_answer({"user": actor.name if actor.is_known else ""})


class FleetPage(Page):
    """The page about fleets of remote model servers.

    Args:
        others: pages that it has links to.
    """

    def __init__(self, others: Sequence[str] = ()) -> None:
        super().__init__("fleets.html", others)


def _links(others: Sequence[str]) -> bytes:
    if not others:
        return b""
    links = "".join(f'<a href="../{name}/ui">{_NAMES[name]}</a>' for name in others)
    return f'<nav aria-label="Other pages">{links}</nav>'.encode()
