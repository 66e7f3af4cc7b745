"""Just enough of S3 to answer reads from a dictionary, for a ScriptedServer that then spoils the answers."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.servers.scripted_http import Asked, Reply

BUCKET = "bucket"


def etag_of(content: bytes) -> str:
    """Return the etag that a bucket gives to a small object."""
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


@dataclass(slots=True)
class FakeBucket:
    """A bucket.

    Attributes:
        objects: key -> content.
        ranges: whether a part of an object can be asked for.
        page: keys in one answer to a listing.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    page: int = 1000

    def answer(self, asked: Asked) -> Reply:
        """Answer a listing or a read."""
        url = urlsplit(asked.target)
        key = unquote(url.path).removeprefix(f"/{BUCKET}").lstrip("/")
        return self._object(asked, key) if key else self._listing(parse_qs(url.query))

    def _object(self, asked: Asked, key: str) -> Reply:
        content = self.objects.get(key)
        if content is None:
            return Reply(status=404, body=b"<Error><Code>NoSuchKey</Code></Error>")
        headers = {"ETag": etag_of(content), "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        if asked.headers.get("if-match", headers["ETag"]) != headers["ETag"]:
            return Reply(status=412, body=b"<Error><Code>PreconditionFailed</Code></Error>")
        if "range" not in asked.headers or not self.ranges:
            return Reply(body=content, headers=headers)
        first, _, last = asked.headers["range"].removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last or len(content) - 1) + 1, len(content))
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        return Reply(status=206, body=content[start:stop], headers=headers)

    def _listing(self, query: dict[str, list[str]]) -> Reply:
        prefix = query.get("prefix", [""])[0]
        after = query.get("continuation-token", [""])[0]
        keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        return Reply(body=listing(((key, self.objects[key]) for key in keys[: self.page]), keys[self.page :]))


def listing(objects: Iterable[tuple[str, bytes]], more: Iterable[str] = ()) -> bytes:
    """Return the answer to a listing, from (key, content); the last key is the token when there are more."""
    rows, last = [], ""
    for key, content in objects:
        last = key
        rows.append(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>{escape(etag_of(content))}</ETag><Size>{len(content)}</Size></Contents>"
        )
    truncated = "true" if any(True for _ in more) else "false"
    token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if truncated == "true" else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>'
        f"<IsTruncated>{truncated}</IsTruncated>{token}{''.join(rows)}</ListBucketResult>"
    ).encode()
