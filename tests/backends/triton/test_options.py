"""Reading the Triton backend's options."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.backends.triton.options import Batching, parse_options
from gateway.core.errors import ModelLoadError


def test_the_fleet_is_all_that_is_needed() -> None:
    """The model's name on Triton is its public one unless the options say otherwise."""
    options = parse_options({"fleet": "a"}, name="digits")
    assert (options.model, options.version, options.batching) == ("digits", None, Batching.AUTO)
    assert options.shared_memory
    assert not options.control


def test_everything_can_be_said() -> None:
    """Every option is read, in the forms that YAML gives it."""
    raw = {
        "fleet": "a",
        "model": "mnist",
        "version": "3",
        "batching": "gateway",
        "min_ready": 0.5,
        "ready_timeout_s": 5,
        "shared_memory": False,
        "control": True,
    }
    options = parse_options(raw, name="digits")
    assert (options.model, options.version, options.batching) == ("mnist", 3, Batching.GATEWAY)
    assert (options.shared_memory, options.control, options.ready_timeout_s) == (False, True, 5.0)


@pytest.mark.parametrize(
    ("min_ready", "endpoints", "enough"),
    [(1, 3, 1), (2, 3, 2), (0.5, 3, 2), (0.1, 3, 1), (1, 0, 1), (0.5, 0, 1)],
)
def test_enough_endpoints(min_ready: float, endpoints: int, enough: int) -> None:
    """A share is rounded up, and none is never enough."""
    assert parse_options({"fleet": "a", "min_ready": min_ready}, name="m").enough(endpoints) == enough


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({}, "needs the option 'fleet'"),
        ({"fleet": "a", "batch": "auto"}, "did you mean 'batching'"),
        ({"fleet": 7}, "'fleet' of backend triton: 7 is not a name"),
        ({"fleet": "a", "version": 0}, "integers from 1 on"),
        ({"fleet": "a", "version": True}, "'version'"),
        ({"fleet": "a", "batching": "both"}, "none of auto, gateway, passthrough"),
        ({"fleet": "a", "min_ready": 1.5}, "neither a count"),
        ({"fleet": "a", "min_ready": 0}, "neither a count"),
        ({"fleet": "a", "ready_timeout_s": "inf"}, "positive number of seconds"),
        ({"fleet": "a", "shared_memory": "always"}, "neither auto nor off"),
        ({"fleet": "a", "control": "yes"}, "neither true nor false"),
    ],
)
def test_wrong_options_say_what_is_wrong(raw: dict[str, Any], words: str) -> None:
    """A wrong option is named, with what would be right."""
    with pytest.raises(ModelLoadError, match=words):
        parse_options(raw, name="m")
