"""A bare ASGI application on uvicorn that sends back the body it got."""

from typing import Any

import uvicorn

from loadtests.peers.servers.one_thread import settings

_COPIED = frozenset({b"content-type", b"inference-header-content-length"})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer one request with its body, and with the headers that say how to read it."""
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(parts)
    headers = [header for header in scope["headers"] if header[0] in _COPIED]
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(
        echo,
        host="127.0.0.1",
        port=settings()["ports"]["http-binary"],
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
