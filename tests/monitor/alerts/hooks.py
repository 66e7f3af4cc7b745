"""A webhook's receiver: answers as told, remembers what it was sent."""

from __future__ import annotations

import queue
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 30
"""How long tests wait for what must come; no expectation."""


@dataclass(slots=True)
class Receiver:
    """A running receiver.

    Attributes:
        url: posted to.
        statuses: answered in turn; 200 when there are none left.
        came: (headers by lower-case name, body) of every delivery.
    """

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    came: queue.Queue[tuple[dict[str, str], bytes]] = field(default_factory=queue.Queue)

    def next(self) -> tuple[dict[str, str], bytes]:
        """Return the next delivery."""
        return self.came.get(timeout=PATIENCE_S)


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run one on a free port."""
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            made.came.put(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(made.statuses.pop(0) if made.statuses else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        made.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
