"""schemathesis against a running gateway: whatever fits or breaks the document, no answer is outside it."""

from __future__ import annotations

import pytest

from loadtests.soak_kills import served
from loadtests.soak_schemathesis import EXAMPLES, run_schemathesis

FRACTION = 0.05
"""Of the examples that `make soak` makes for each operation."""


@pytest.mark.soak
@pytest.mark.parametrize(
    ("mode", "named"),
    [("none", False), ("none", True), ("explicit", True)],
    ids=["made-up models", "a real model", "loads and unloads"],
)
def test_every_answer_is_documented(mode: str, named: bool) -> None:
    """No operation answers 500, a status, a media type or a body that the OpenAPI document does not have."""
    with served(mode=mode) as (server, directory):
        findings = run_schemathesis(server.http_port, round(EXAMPLES * FRACTION), directory, named=named)
        assert server.alive
        log = server.log
    assert findings.failures == ""
    assert findings.exit_code == 0
    assert "Traceback" not in log
