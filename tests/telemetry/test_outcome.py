"""Outcomes of errors."""

import asyncio

import pytest

from gateway.core import errors
from gateway.telemetry.outcome import Outcome, outcome_of

CASES: list[tuple[BaseException | None, Outcome]] = [
    (None, Outcome.OK),
    (errors.InvalidRequest("x"), Outcome.INVALID),
    (errors.PayloadTooLarge("x"), Outcome.INVALID),
    (errors.NotFound("x"), Outcome.NOT_FOUND),
    (errors.PermissionDenied("x"), Outcome.DENIED),
    (errors.Unsupported("x"), Outcome.UNSUPPORTED),
    (errors.Cancelled("x"), Outcome.CANCELLED),
    (asyncio.CancelledError(), Outcome.CANCELLED),
    (GeneratorExit(), Outcome.CANCELLED),
    (errors.DeadlineExceeded("x"), Outcome.DEADLINE),
    (errors.Overloaded("x"), Outcome.OVERLOADED),
    (errors.Unavailable("x"), Outcome.UNAVAILABLE),
    (errors.NotReady("x"), Outcome.UNAVAILABLE),
    (errors.Draining("x"), Outcome.UNAVAILABLE),
    (errors.BackendError("x"), Outcome.BACKEND_ERROR),
    (errors.BackendUnavailable("x"), Outcome.BACKEND_ERROR),
    (errors.GatewayError("x"), Outcome.INTERNAL),
    (ValueError("x"), Outcome.INTERNAL),
]


@pytest.mark.parametrize(("error", "outcome"), CASES, ids=lambda v: type(v).__name__)
def test_each_error_has_its_outcome(error: BaseException | None, outcome: Outcome) -> None:
    """The nearest listed class of the error tree decides."""
    assert outcome_of(error) is outcome
