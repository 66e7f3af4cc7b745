"""What administration shows of fleets, and the page that `gateway models show` draws of it."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from gateway.admin.fleets import FleetRow, fleet_of, fleet_row
from gateway.commands.model_page import model_page
from gateway.core.remote import Address, EndpointState, EndpointView

ONE, TWO = Address("10.0.0.1", 8001), Address("::1", 8001)
NOW_S, WALL_S = 500.0, 1_700_000_000.0
FLEET = FleetRow(
    name="a",
    now_s=NOW_S,
    capacity=20,
    endpoints=(
        EndpointView(address=ONE, state=EndpointState.HEALTHY, inflight=3, limit=20, since_s=100.0),
        EndpointView(
            address=TWO,
            state=EndpointState.EJECTED,
            reason="5 failures in a row",
            ejections=2,
            since_s=NOW_S - 30,
            until_s=NOW_S + 2.5,
        ),
    ),
    ready={ONE: [("mnist", 2), ("mnist", 1), ("other", 1)]},
    serves={"digits": "mnist"},
)


def test_a_fleet_is_shown_with_what_each_endpoint_has() -> None:
    """By the names there, with wall-clock times; an endpoint that said nothing has nothing."""
    row = fleet_row(FLEET, WALL_S)
    assert row["serves"] == {"digits": "mnist"}
    assert row["endpoints"] == [
        {
            "address": "10.0.0.1:8001",
            "state": "healthy",
            "reason": "",
            "since": WALL_S - 400,
            "until": None,
            "inflight": 3,
            "limit": 20,
            "ejections": 0,
            "models": {"mnist": [1, 2], "other": [1]},
        },
        {
            "address": "[::1]:8001",
            "state": "ejected",
            "reason": "5 failures in a row",
            "since": WALL_S - 30,
            "until": WALL_S + 2.5,
            "inflight": 0,
            "limit": 0,
            "ejections": 2,
            "models": {},
        },
    ]


def test_a_model_is_shown_with_its_versions_on_each_endpoint() -> None:
    """A model of this process has no fleet."""
    shown = fleet_of("digits", [FLEET], WALL_S)
    assert shown is not None
    assert (shown["fleet"], shown["model"]) == ("a", "mnist")
    assert [endpoint["versions"] for endpoint in shown["endpoints"]] == [[1, 2], []]
    assert fleet_of("mnist", [FLEET], WALL_S) is None


def test_the_page_of_a_model_draws_its_endpoints() -> None:
    """Where it runs, in what state each endpoint is and why, and what each has of it."""
    page: dict[str, Any] = {
        "model": "digits",
        "ready": False,
        "default_version": None,
        "versions": [],
        "reason": "resolve: no endpoint of fleet 'a' answers",
        "registry": None,
        "fleet": fleet_of("digits", [FLEET], WALL_S),
        "now": 0.0,
    }
    console = Console(file=io.StringIO(), width=100, highlight=False)
    console.print(model_page(page))
    drawn = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert "on fleet a, as mnist" in drawn
    lines = [line.split() for line in drawn.splitlines()]
    assert ["10.0.0.1:8001", "healthy", "1,", "2", "3", "of", "20"] in lines
    assert ["[::1]:8001", "ejected:", "5", "failures", "in", "a", "row", "none", "0", "of", "0"] in lines
    assert "no endpoint of fleet 'a' answers" in drawn
