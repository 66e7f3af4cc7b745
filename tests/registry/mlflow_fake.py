"""A server that answers as MLflow does, or in whatever way a test wants it to fail."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

API = "/api/2.0/mlflow/"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
SOURCE = "mlflow-artifacts:/1/run/artifacts/model"


class Request(http.server.BaseHTTPRequestHandler):
    """One request, as the answers of a test see it."""

    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        """Answer."""
        self.close_connection = True
        fake = self.server.fake
        fake.seen.append(self)
        split = urlsplit(self.path)
        for prefix, answer in fake.answers.items():
            if unquote(split.path).startswith(prefix):
                answer(self)
                return
        self.give(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "there is none"})

    def query(self, name: str) -> str:
        """Return a parameter."""
        return parse_qs(urlsplit(self.path).query).get(name, [""])[0]

    def give(self, status: int, body: Any, **headers: str) -> None:
        """Send an answer; `body` is bytes, or anything that JSON can say."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content_Length": str(len(content)), "Connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


Answer: TypeAlias = Callable[[Request], None]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    fake: "FakeMlflow"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients of these tests go in mid-answer."""


@dataclass
class FakeMlflow:
    """The server.

    Attributes:
        uri: where.
        answers: beginning of a path -> what answers it; the first that fits does.
        seen: the requests so far.
        ended: set when the test has, so that no answer hangs for longer.
    """

    uri: str
    answers: dict[str, Answer] = field(default_factory=dict)
    seen: list[Request] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def override(self, prefix: str, answer: Answer) -> None:
        """Answer paths that begin so in this way first."""
        others = {path: other for path, other in self.answers.items() if path != prefix}
        self.answers = {prefix: answer, **others}

    def hang(self, request: Request) -> None:
        """Give no answer."""
        self.ended.wait()

    def stall(self, request: Request) -> None:
        """Begin an answer, and send nothing more."""
        request.send_response(200)
        request.send_header("Content-Length", "1000000")
        request.end_headers()
        request.wfile.write(b"x" * 1000)
        request.wfile.flush()
        self.ended.wait()

    def serve(self, files: dict[str, bytes]) -> None:
        """Answer as MLflow does, with one model of one version that has these files, and ranges of them."""

        def artifacts(request: Request) -> None:
            path = unquote(urlsplit(request.path).path).removeprefix(ARTIFACTS)
            if not path:
                request.give(200, _listing(files, request.query("path")))
                return
            content = files.get(path.removeprefix("/1/run/artifacts/model/"))
            if content is None:
                request.give(404, {"error_code": "RESOURCE_DOES_NOT_EXIST"})
            elif wanted := request.headers.get("Range"):
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                part = content[int(first) : int(last) + 1 if last else None]
                span = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
                request.give(206, part, Content_Range=span, ETag='"same"')
            else:
                request.give(200, content)

        version = {"name": "fraud", "version": "1", "status": "READY", "source": SOURCE}
        self.answers |= {
            f"{API}registered-models/get": lambda r: r.give(200, {"registered_model": {"name": "fraud"}}),
            f"{API}model-versions/search": lambda r: r.give(200, {"model_versions": [version]}),
            f"{API}model-versions/get-download-uri": lambda r: r.give(200, {"artifact_uri": SOURCE}),
            ARTIFACTS: artifacts,
        }


@contextmanager
def fake_mlflow() -> Iterator[FakeMlflow]:
    """Run one until the context is left."""
    with _Server(("127.0.0.1", 0), Request) as server:
        fake = FakeMlflow(f"http://127.0.0.1:{server.server_port}")
        server.fake = fake
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield fake
        finally:
            fake.ended.set()
            server.shutdown()
            thread.join()


def _listing(files: dict[str, bytes], directory: str) -> dict[str, Any]:
    below = directory.removeprefix("1/run/artifacts/model").strip("/")
    prefix = f"{below}/" if below else ""
    inside = {path.removeprefix(prefix): part for path, part in files.items() if path.startswith(prefix)}
    folders = {path.partition("/")[0] for path in inside if "/" in path}
    return {
        "files": [{"path": name, "is_dir": True} for name in sorted(folders)]
        + [
            {"path": path, "is_dir": False, "file_size": len(part)}
            for path, part in inside.items()
            if "/" not in path
        ]
    }
