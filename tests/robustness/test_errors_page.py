"""docs/errors.md says what the one table from errors to codes says."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from gateway.core import errors
from gateway.protocol.status import INTERNAL_MESSAGE, GrpcCode, status_of
from loadtests.soak_fuzz import ALLOWED_HTTP

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
ROWS = {
    match[1]: match
    for match in re.finditer(
        r"^\| `(\w+)` \| (.+?) \| (\w+) \| (\d+) \| `(.+)` \| (.+?) \|$", PAGE, re.MULTILINE
    )
}
CLASSES = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.GatewayError)
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_is_on_the_page_with_its_codes(kind: type[errors.GatewayError]) -> None:
    """Class, gRPC code and HTTP status of each row are those that clients get."""
    row = ROWS[kind.__name__]
    status = status_of(kind("x"))
    assert (row[3], int(row[4])) == (GrpcCode(status.grpc_code).name, status.http_status)


def test_the_page_has_no_other_errors() -> None:
    """A class that is gone leaves no row behind."""
    assert set(ROWS) == {kind.__name__ for kind in CLASSES}
    assert INTERNAL_MESSAGE in PAGE


@pytest.mark.parametrize("status", [501, 503, 504])
def test_the_page_lists_causes(status: int) -> None:
    """Each 5xx that bad input may get has its list of causes."""
    assert re.search(rf'<a id="{status}"></a>\*\*{status} / [A-Z_]+\*\*\n\n- ', PAGE)
    assert status in ALLOWED_HTTP
    assert 500 not in ALLOWED_HTTP
