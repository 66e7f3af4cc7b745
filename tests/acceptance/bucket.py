"""A bucket on loopback that counts which bytes of its objects are asked for, and holds some of them back."""

from __future__ import annotations

import threading
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tests.acceptance.process import PATIENCE_S
from tests.servers.fake_bucket import BUCKET, FakeBucket
from tests.servers.scripted_http import Asked

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class CountingBucket:
    """A bucket of S3 that anybody may read.

    Attributes:
        endpoint: `http://127.0.0.1:port`.
        content: its objects.
        asked: key -> first byte of each read of it, from when it is asked for.
        held: keys of which all but the first part is held back until `let_go`.
    """

    endpoint: str = ""
    content: FakeBucket = field(default_factory=FakeBucket)
    asked: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    held: set[str] = field(default_factory=set)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _gone: threading.Event = field(default_factory=threading.Event)

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        self.content.objects[key] = content

    def let_go(self) -> None:
        """Hold nothing back from now on."""
        self._gone.set()

    def note(self, asked: Asked) -> None:
        """Take note of a read; wait while it is held back."""
        key = unquote(urlsplit(asked.target).path).removeprefix(f"/{BUCKET}").lstrip("/")
        start = int(asked.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        with self._guard:
            self.asked[key].append(start)
        if key in self.held and start:
            assert self._gone.wait(PATIENCE_S), "nobody let it go"


@contextmanager
def counting_bucket() -> Iterator[CountingBucket]:
    """Serve a bucket until the context is left."""
    bucket = CountingBucket()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = Asked("GET", self.path, {name.lower(): value for name, value in self.headers.items()})
            bucket.note(asked)
            reply = bucket.content.answer(asked)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        bucket.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, name="bucket")
        thread.start()
        try:
            yield bucket
        finally:
            bucket.let_go()
            server.shutdown()
            thread.join()
