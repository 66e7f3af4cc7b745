"""The pages: one empty shell for all of them, the files it needs, and what fills it as JSON."""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from starlette.responses import Response
from starlette.routing import Route

from gateway.core.errors import InvalidRequest, NotFound
from gateway.monitor.pages.arms_page import arms_page
from gateway.monitor.pages.asked import Asked
from gateway.monitor.pages.drift_pages import model_page, signal_page
from gateway.monitor.pages.fleet import fleet_page
from gateway.monitor.pages.ledger_pages import alarms_page, pipeline_page
from gateway.monitor.pages.palette import THEMES
from gateway.monitor.pages.performance_page import performance_page
from gateway.monitor.pages.rendering import digest_of, page_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

    from gateway.monitor.pages.blocks import Page
    from gateway.monitor.pages.drawing import Drawing
    from gateway.monitor.pages.options import PageOptions
    from gateway.monitor.pages.view import MonitorView

_TYPES: Final[Mapping[str, str]] = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
_INDEX: Final = "index.html"
_FIXED: Final[Mapping[str, Callable[[MonitorView, Asked], Awaitable[Page]]]] = {
    "/": fleet_page,
    "/alarms": alarms_page,
    "/pipeline": pipeline_page,
}
_OF_MODEL: Final[Mapping[str, Callable[[MonitorView, Asked, str], Awaitable[Page]]]] = {
    "": model_page,
    "/signal": signal_page,
    "/performance": performance_page,
    "/arms": arms_page,
    "/alarms": alarms_page,
}


def bokeh_script() -> bytes:
    """Return BokehJS as the installed package ships it."""
    return files("bokeh").joinpath("server", "static", "js", "bokeh.min.js").read_bytes()


class Site:
    """Handlers of the pages; files are read once, when this is made.

    Args:
        view: who knows.
        options: how often a page asks for news.
        drawing: where charts are drawn.
    """

    def __init__(self, view: MonitorView, options: PageOptions, drawing: Drawing) -> None:
        self._view = view
        self._options = options
        self._drawing = drawing
        folder = files("gateway.monitor.pages").joinpath("static")
        self._files = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
        self._files["bokeh.js"] = bokeh_script()
        marks = {name: blake2b(data, digest_size=6).hexdigest() for name, data in self._files.items()}
        shell = self._files[_INDEX].decode().replace("@refresh", f"{options.refresh_s:g}")
        for name, mark in marks.items():
            shell = shell.replace(f"/ui/files/{name}", f"/ui/files/{name}?{mark}")
        self._shell = shell.encode()

    def routes(self) -> list[Route]:
        """Return what is served."""
        models = [f"/models/{{model}}{path}" for path in _OF_MODEL]
        return [
            *(Route(path, self.shell) for path in (*_FIXED, *models)),
            Route("/ui/files/{name}", self.file),
            *(Route(f"/ui/data{path}", self.fixed) for path in _FIXED),
            *(Route(f"/ui/data{path}", self.of_model) for path in models),
        ]

    async def shell(self, _request: Request) -> Response:
        """Serve the page without what it shows."""
        return Response(self._shell, media_type=_TYPES["html"])

    async def file(self, request: Request) -> Response:
        """Serve one of its files; asked for by its digest it never changes."""
        name = request.path_params["name"]
        kind = _TYPES.get(name.rpartition(".")[2])
        if name not in self._files or kind is None:
            raise NotFound("the page has no such file")
        lasting = "public, max-age=31536000, immutable" if request.url.query else "no-cache"
        return Response(self._files[name], headers={"cache-control": lasting}, media_type=kind)

    async def fixed(self, request: Request) -> Response:
        """Return a page that is of no model."""
        make = _FIXED[request.url.path.removeprefix("/ui/data")]
        return await self._answer(request, await make(self._view, self._asked(request)))

    async def of_model(self, request: Request) -> Response:
        """Return a page of a model."""
        model = request.path_params["model"]
        rest = request.url.path.removeprefix("/ui/data/models/")
        place = "/" + rest.rpartition("/")[2] if "/" in rest else ""
        return await self._answer(request, await _OF_MODEL[place](self._view, self._asked(request), model))

    def _asked(self, request: Request) -> Asked:
        options = self._options
        return Asked(dict(request.query_params), self._view.now_s(), options.windows, options.usual_range)

    async def _answer(self, request: Request, page: Page) -> Response:
        theme = request.query_params.get("theme", "light")
        if theme not in THEMES:
            raise InvalidRequest(f"'theme' must be one of {', '.join(THEMES)}")
        digest = digest_of(page, theme)
        headers = {"etag": f'"{digest}"', "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        body = await self._drawing.run(partial(page_json, page, theme, self._drawing))
        return Response(body, headers=headers, media_type="application/json")
