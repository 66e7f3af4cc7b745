"""What Triton's failures mean."""

from __future__ import annotations

import grpc
import pytest

from gateway.backends.triton.failures import (
    ModelFailed,
    RegionUnknown,
    VersionNotThere,
    clean,
    in_band,
    of_status,
    pushback_of,
)
from gateway.core.errors import BackendError, GatewayError, InvalidRequest, Unsupported
from gateway.core.remote import AttemptError, Outcome

C = grpc.StatusCode


def of(code: grpc.StatusCode, details: str) -> GatewayError:
    return of_status(code, details, model="mnist", name="digits")


@pytest.mark.parametrize(
    ("code", "details", "outcome", "sent"),
    [
        (C.UNAVAILABLE, "Exceeds maximum queue size", Outcome.REFUSED, False),
        (C.UNAVAILABLE, "Request timeout expired", Outcome.REFUSED, False),
        (C.UNAVAILABLE, "Server is stopping, no more requests", Outcome.FAILED, False),
        (C.UNAVAILABLE, "failed to connect to all addresses: ipv4:1.2.3.4:1", Outcome.FAILED, False),
        (C.UNAVAILABLE, "DNS resolution failed for triton:8001", Outcome.FAILED, False),
        (C.UNAVAILABLE, "This protocol is restricted, expecting header 'k'", Outcome.FAILED, False),
        (C.UNAVAILABLE, "Socket closed", Outcome.FAILED, True),
        (C.UNAVAILABLE, "", Outcome.FAILED, True),
        (C.RESOURCE_EXHAUSTED, "too many", Outcome.REFUSED, False),
        (C.DEADLINE_EXCEEDED, "Deadline Exceeded", Outcome.TIMED_OUT, True),
        (C.CANCELLED, "", Outcome.FAILED, True),
        (C.UNKNOWN, "what", Outcome.FAILED, True),
        (C.PERMISSION_DENIED, "no", Outcome.FAILED, False),
        (C.INTERNAL, "Received RST_STREAM with error code 2", Outcome.FAILED, True),
    ],
)  # fmt: skip
def test_attempts(code: grpc.StatusCode, details: str, outcome: Outcome, sent: bool) -> None:
    """What another endpoint may do better at, and whether this one may have begun."""
    error = of(code, details)
    assert type(error) is AttemptError
    assert (error.outcome, error.sent) == (outcome, sent)


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (C.NOT_FOUND, "Request for unknown model: 'mnist' version 9 is not found"),
        (C.UNAVAILABLE, "Request for unknown model: 'mnist' version 2 is not at ready state"),
        (C.NOT_FOUND, "Request for unknown model: 'mnist' has no available versions"),
    ],
)
def test_a_version_that_is_not_there(code: grpc.StatusCode, details: str) -> None:
    """Nothing was run, and the endpoint has not got the version."""
    error = of(code, details)
    assert isinstance(error, VersionNotThere)
    assert not error.sent


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (C.INVALID_ARGUMENT, InvalidRequest),
        (C.UNIMPLEMENTED, Unsupported),
        (C.INTERNAL, ModelFailed),
        (C.NOT_FOUND, BackendError),
    ],
)
def test_answers(code: grpc.StatusCode, kind: type[GatewayError]) -> None:
    """What is the endpoint's answer keeps its words."""
    error = of(
        code, "[request id: 7] unexpected shape for input 'x' for model 'mnist'. Expected [2], got [3]."
    )
    assert type(error) is kind
    assert "unexpected shape for input 'x' for model 'digits'. Expected [2], got [3]." in str(error)
    assert "request id" not in str(error)


def test_a_region_that_is_not_known() -> None:
    """It is told apart from a model that is not."""
    assert isinstance(of(C.NOT_FOUND, "Unable to find shared memory region: 'r'"), RegionUnknown)


def test_too_large() -> None:
    """A message that no endpoint takes is not sent to another."""
    error = of(C.RESOURCE_EXHAUSTED, "CLIENT: Sent message larger than max (3 vs. 2)")
    assert type(error) is BackendError


@pytest.mark.parametrize(
    "text",
    [
        "cannot open /models/mnist/1/model.onnx",
        "s3://bucket/secret/key failed",
        "connect to 10.0.0.1:8001 failed",
        "connect to ipv4:10.0.0.1:8001 failed",
        "connect to triton-0.triton.svc:8001 failed",
        "connect to [2001:db8::1]:8001 failed",
        "unix:/run/triton.sock failed",
    ],
)
def test_addresses_and_paths_are_taken_out(text: str) -> None:
    """Clients are not told where things are."""
    shown = clean(text)
    for secret in ("models", "bucket", "10.0.0.1", "8001", "svc", "db8", "triton.sock"):
        assert secret not in shown


def test_what_says_nothing_of_places_stays() -> None:
    """Shapes, names and numbers are left as they are, on one line of bounded length."""
    text = "Expected [-1,2], got [1,3] and/or 3.5 at 12:30,\n input 'a.b' 50%"
    assert clean(text) == text.replace("\n", "")
    assert len(clean("x" * 10_000)) == 500


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Request for unknown model: 'mnist' version 7 is not found", VersionNotThere),
        ("Exceeds maximum queue size", AttemptError),
        (
            "[request id: <id_unknown>] unexpected shape for input 'x' for model 'mnist'. Expected [1]",
            InvalidRequest,
        ),
        ("inference request batch-size must be <= 8 for 'mnist'", InvalidRequest),
        ("division by zero", ModelFailed),
    ],
)
def test_errors_without_a_code(text: str, kind: type[GatewayError]) -> None:
    """On a stream the text alone tells what an error is."""
    error = in_band(text, model="mnist", name="digits")
    assert type(error) is kind
    assert "mnist" not in str(error)


@pytest.mark.parametrize(
    ("metadata", "seconds"),
    [
        (None, None),
        ([("a", "1")], None),
        ([("grpc-retry-pushback-ms", "1500")], 1.5),
        ([("grpc-retry-pushback-ms", "-1")], -0.001),
        ([("grpc-retry-pushback-ms", "soon")], -1.0),
    ],
)
def test_pushback(metadata: list[tuple[str, str]] | None, seconds: float | None) -> None:
    """An endpoint may say when it wants a retry; nonsense means never."""
    assert pushback_of(metadata) == seconds
