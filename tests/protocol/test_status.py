from __future__ import annotations

import inspect

import grpc
import pytest

from gateway.core import errors
from gateway.protocol.status import INTERNAL_MESSAGE, GrpcCode, StatusProfile, status_of

TABLE = [
    (errors.GatewayError("x"), 13, 500),
    (errors.InvalidRequest("x"), 3, 400),
    (errors.PayloadTooLarge("x"), 3, 413),
    (errors.NotFound("x"), 5, 404),
    (errors.PermissionDenied("x"), 7, 403),
    (errors.Unsupported("x"), 12, 501),
    (errors.Cancelled("x"), 1, 499),
    (errors.DeadlineExceeded("x"), 4, 504),
    (errors.Unavailable("x"), 14, 503),
    (errors.Overloaded("x"), 8, 429),
    (errors.NotReady("x"), 14, 503),
    (errors.Draining("x"), 14, 503),
    (errors.BackendError("x"), 13, 500),
    (errors.BackendUnavailable("x"), 14, 503),
    (errors.ModelLoadError("x"), 13, 500),
    (errors.ConfigError("x"), 3, 400),
]


@pytest.mark.parametrize(("error", "grpc_code", "http_status"), TABLE)
def test_every_error_has_its_codes(error: errors.GatewayError, grpc_code: int, http_status: int) -> None:
    """Each class of the error tree has one gRPC code and one HTTP status, and keeps its message."""
    status = status_of(error)
    assert (status.grpc_code, status.http_status, status.message) == (grpc_code, http_status, "x")


def test_the_table_above_is_complete() -> None:
    """No class of the error tree is left out of these tests."""
    tree = {c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.GatewayError)}
    assert tree == {type(error) for error, _, _ in TABLE}


@pytest.mark.parametrize("code", list(GrpcCode))
def test_the_codes_are_grpcs_own(code: GrpcCode) -> None:
    """Names and numbers are those of the gRPC library."""
    assert grpc.StatusCode[code.name].value[0] == code


def test_tritons_profile_changes_overload_and_expiry_only() -> None:
    """Under Triton's profile both are UNAVAILABLE / 503, and nothing else moves."""
    for error, grpc_code, http_status in TABLE:
        moved = isinstance(error, errors.Overloaded | errors.DeadlineExceeded)
        status = status_of(error, StatusProfile.TRITON)
        assert (status.grpc_code, status.http_status) == ((14, 503) if moved else (grpc_code, http_status))


@pytest.mark.parametrize(
    ("error", "seconds", "pushback_ms"),
    [
        (errors.Overloaded("x"), "1", "1000"),
        (errors.Overloaded("x", retry_after_s=2.2), "3", "2200"),
        (errors.NotReady("x", retry_after_s=0.01), "1", "10"),
    ],
)
def test_a_refusal_says_when_to_come_back(error: errors.Unavailable, seconds: str, pushback_ms: str) -> None:
    """An overload always says when to retry, other refusals when they know, in whole seconds on HTTP."""
    status = status_of(error)
    assert status.http_headers == (("Retry-After", seconds),)
    assert status.grpc_metadata == (("grpc-retry-pushback-ms", pushback_ms),)


def test_other_refusals_say_nothing() -> None:
    """Without a known time there is no header."""
    assert status_of(errors.Draining("x")).http_headers == ()


def test_an_unexpected_exception_gives_nothing_away() -> None:
    """What was not meant for the client becomes INTERNAL / 500 without its message."""
    status = status_of(KeyError("/etc/secret"))
    assert (status.grpc_code, status.http_status, status.message) == (13, 500, INTERNAL_MESSAGE)
