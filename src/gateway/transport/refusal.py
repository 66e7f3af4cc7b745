"""Why an HTTP request is refused by the transport itself, before any method sees it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gateway.core.calls import HttpResponse

if TYPE_CHECKING:
    from gateway.core.calls import Headers


class HttpRefusal(Exception):
    """Raised or recorded to end an exchange with an error response.

    Args:
        status: HTTP status code, 4xx or 5xx.
        message: text for the client.
        headers: further response headers.
        close: whether the connection is closed afterwards, because the request was not read to its end.
    """

    def __init__(self, status: int, message: str, headers: Headers = (), *, close: bool = True) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers
        self.close = close

    def response(self) -> HttpResponse:
        """Return the response, `{"error": message}`."""
        closing = (("Connection", "close"),) if self.close else ()
        return HttpResponse(
            status=self.status,
            body=(error_body(self.message),),
            headers=(*self.headers, *closing),
            compressible=False,
        )


def error_body(message: str) -> bytes:
    """Return the JSON body of an error."""
    return json.dumps({"error": message}, separators=(",", ":")).encode()
