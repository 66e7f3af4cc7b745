"""Errors that become answers."""

import pytest

from gateway.api.errors import ErrorTranslator
from gateway.core.calls import HttpRequest, HttpResponse
from gateway.core.errors import BackendError
from gateway.protocol.status import StatusProfile


@pytest.mark.timeout(20)
async def test_causes_that_go_in_a_circle_end() -> None:
    """An error raised from one that it had caused itself is answered, and its frames are let go."""
    first, second = BackendError("first"), BackendError("second")
    first.__cause__, second.__cause__ = second, first

    async def failing(request: HttpRequest) -> HttpResponse:
        raise first

    request = HttpRequest("GET", "/", {}, "", {}, b"", 0.0)
    answer = await ErrorTranslator(StatusProfile.DEFAULT).http(failing)(request)
    assert answer.status == 500
    assert first.__traceback__ is None
