"""Route patterns on percent-encoded paths: a parameter is one segment, decoded once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

from starlette.routing import BaseRoute, Match

from gateway.core.errors import ConfigError
from gateway.transport.refusal import HttpRefusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from starlette.types import Receive, Scope, Send

    from gateway.core.calls import HttpRoute

# RFC 3986 section 3.3: what may stand in a segment unencoded, beside letters and digits.
_SEGMENT_SAFE: Final = "-._~!$&'()*+,;=:@"
_PARAMETER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([a-z]+))?\}")
_CONVERTERS: Final = {"str": "[^/]+", "int": "[0-9]+", "path": ".+"}


def canonical_path(raw_path: bytes) -> str:
    """Return the path with exactly those characters encoded that must be; equal paths become equal strings.

    Raises:
        HttpRefusal: 400 when the path is not UTF-8 once decoded.
    """
    path = raw_path.decode("ascii")
    if "%" not in path:
        return path
    try:
        segments = [unquote(segment, errors="strict") for segment in path.split("/")]
    except UnicodeDecodeError as exc:
        raise HttpRefusal(400, "request path is not UTF-8", close=False) from exc
    return "/".join(quote(segment, safe=_SEGMENT_SAFE) for segment in segments)


class PathRoute(BaseRoute):
    """All methods of one path pattern, as a Starlette route.

    `{name}` matches one segment, `{name:int}` decimal digits, `{name:path}` the rest of the path.

    Attributes:
        methods: routes by HTTP method; HEAD is served by GET.
        allow: value of the Allow header.
    """

    def __init__(
        self,
        pattern: str,
        routes: Iterable[HttpRoute],
        serve: Callable[[PathRoute, Scope, Receive, Send], Awaitable[None]],
    ) -> None:
        self.methods: dict[str, HttpRoute] = {route.method: route for route in routes}
        if "GET" in self.methods:
            self.methods.setdefault("HEAD", self.methods["GET"])
        self.allow = ", ".join(sorted(self.methods))
        self._serve = serve
        self._regex = _compile(pattern)

    def match(self, path: str) -> dict[str, str] | None:
        """Return the decoded parameters when the canonical `path` is this route's, else None."""
        found = self._regex.fullmatch(path)
        if found is None:
            return None
        values = found.groupdict()
        if "%" not in path:
            return values
        return {name: unquote(value) for name, value in values.items()}

    def matches(self, scope: Scope) -> tuple[Match, Mapping[str, Any]]:  # type: ignore[override]
        """Match by path alone; `handle` answers a wrong method."""
        values = self.match(scope["path"])
        if values is None:
            return Match.NONE, {}
        return Match.FULL, {"path_params": values}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request whose path matched."""
        await self._serve(self, scope, receive, send)

    def route_for(self, method: str) -> HttpRoute:
        """Return the route of `method`.

        Raises:
            HttpRefusal: 405 with the methods that are allowed.
        """
        route = self.methods.get(method)
        if route is None:
            raise HttpRefusal(405, "Method Not Allowed", (("Allow", self.allow),), close=False)
        return route


def _compile(pattern: str) -> re.Pattern[str]:
    parts: list[str] = []
    end = 0
    for found in _PARAMETER.finditer(pattern):
        converter = _CONVERTERS.get(found[2] or "str")
        if converter is None:
            raise ConfigError(f"route '{pattern}' has an unknown converter '{found[2]}'")
        parts += [re.escape(pattern[end : found.start()]), f"(?P<{found[1]}>{converter})"]
        end = found.end()
    return re.compile("".join(parts) + re.escape(pattern[end:]))
