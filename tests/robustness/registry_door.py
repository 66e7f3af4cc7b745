"""A door before a real S3 server: passes requests on, spoils the answers as a test says, and can be closed.

Threads, so that tests need no event loop; one request per connection.
"""

from __future__ import annotations

import http.client
import threading
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias
from urllib.parse import unquote

from tests.servers.scripted_http import Asked, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    Spoiler: TypeAlias = Callable[[Asked, Reply], Reply]

RANGE_S: Final = 30.0
"""How long a slow store takes for each range of bytes."""
_HOP_BY_HOP: Final = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive"})


class Door:
    """Serves on a free port until the context is left.

    Args:
        server: `http://127.0.0.1:port` of the S3 server behind it.

    Attributes:
        endpoint: its own address, the same when it is opened again.
    """

    def __init__(self, server: str) -> None:
        self._server = server.removeprefix("http://")
        self._spoilers: dict[str, Spoiler] = {}
        self._mended = threading.Event()
        self._port = 0
        self._listener: _Listener | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Accept connections, on the port it had before if any."""
        self._listener = _Listener(self._port, self._answer, self._mended)
        self._port = self._listener.server_address[1]
        self._listener.start()

    def close(self) -> None:
        """Refuse connections; answers under way are let go."""
        listener, self._listener = self._listener, None
        if listener is not None:
            self._mended.set()
            listener.stop()
            self._mended.clear()

    def spoil(self, fragment: str, change: Spoiler) -> None:
        """Change the answers to requests for what has `fragment` in its path or query."""
        self._spoilers[fragment] = change

    def mend(self, fragment: str) -> None:
        """Answer these rightly again, those that hang too."""
        del self._spoilers[fragment]
        self._mended.set()
        self._mended.clear()

    def _answer(self, asked: Asked) -> Reply:
        reply = self._passed_on(asked)
        target = unquote(asked.target)
        for fragment, change in tuple(self._spoilers.items()):
            if fragment in target:
                reply = change(asked, reply)
        return reply

    def _passed_on(self, asked: Asked) -> Reply:
        behind = http.client.HTTPConnection(self._server, timeout=RANGE_S)
        try:
            behind.putrequest(asked.method, asked.target, skip_host=True, skip_accept_encoding=True)
            for name, value in asked.headers.items():  # the signature covers `host` as it was sent
                if name not in _HOP_BY_HOP:
                    behind.putheader(name, value)
            behind.endheaders()
            answer = behind.getresponse()
            headers = {n: v for n, v in answer.getheaders() if n.lower() not in _HOP_BY_HOP}
            return Reply(status=answer.status, body=answer.read(), headers=headers)
        finally:
            behind.close()


def fault(status: int, code: str) -> Spoiler:
    """Return what answers with an error of S3."""
    body = f"<Error><Code>{code}</Code></Error>".encode()
    return lambda _asked, _reply: Reply(status=status, body=body)


def slow(_asked: Asked, reply: Reply) -> Reply:
    """Send the head of an answer, and its body when RANGE_S are over."""
    return replace(reply, send=0, stall=True)


def truncated(_asked: Asked, reply: Reply) -> Reply:
    """Break off in the middle of the body."""
    return replace(reply, send=len(reply.body) // 2)


def flipped(_asked: Asked, reply: Reply) -> Reply:
    """Change one bit in the middle of the body."""
    body = bytearray(reply.body)
    body[len(body) // 2] ^= 1
    return replace(reply, body=bytes(body))


def overwritten(_asked: Asked, reply: Reply) -> Reply:
    """Answer as if the object had been replaced since it was listed."""
    others = {name: value for name, value in reply.headers.items() if name.lower() != "etag"}
    return replace(reply, headers={**others, "ETag": '"0123456789abcdef0123456789abcdef"'})


class _Listener(ThreadingHTTPServer):
    """Threads that answer; all have ended when `stop` returns."""

    daemon_threads = False
    block_on_close = True
    allow_reuse_address = True

    def __init__(self, port: int, answer: Callable[[Asked], Reply], mended: threading.Event) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answer = answer
        self.mended = mended
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="door")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Take no note: the client went away."""


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.answer(Asked("GET", self.path, headers))
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        with suppress(ConnectionError):
            self.wfile.write(reply.body[: reply.send])
            self.wfile.flush()
            if reply.stall:
                self.server.mended.wait(RANGE_S)
                self.wfile.write(reply.body[reply.send or 0 :])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""
