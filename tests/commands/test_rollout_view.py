"""What `gateway rollout status` and `watch` draw on a terminal, of documents by the controller's code."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from gateway.commands.rollout_view import rate, rollout_page, rollout_table
from tests.browser import scenes

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.rollouts.state import RolloutState

SCENES = (
    scenes.shadowing,
    scenes.baking,
    scenes.awaiting,
    scenes.holding,
    scenes.aborted,
    scenes.promoted,
)


def drawn(renderable: Any, width: int = 80) -> str:
    """Return what a terminal of this width shows."""
    console = Console(width=width, file=io.StringIO(), highlight=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def page(state: RolloutState) -> str:
    return drawn(rollout_page({"now": scenes.NOW_S, **scenes.document(state)}))


def test_a_rollout_that_bakes() -> None:
    """Steps gone through are ticked off; rates have their intervals, gates their evidence and bounds."""
    text = page(scenes.baking())
    assert "fraud-score  baking  step 2/6 weight  for 12.6 m" in text
    assert "5 %   baked 7.2 m of 10 m, 2 h at most" in text
    assert "✓ shadow 25 %   ▸ canary 5 %   · pause 15 m   · approval by 2" in text
    assert "canary     2,000  0.2 % (0.078 to 0.51)" in text
    assert "> 40 ms" in text
    assert "latency.exceed    undecided  harm ░░░░░░░░ -3.5/7.3  pass ██░░░░░░ 0.7/3.7\n" in text


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        (scenes.shadowing, ["2000      1800", "12 (0.667 %)", "180 inflight"]),
        (scenes.awaiting, ["approvals: 1 of 2 by model-risk", "user:carla"]),
        (scenes.holding, ["holding (paused)", "hold       assignment is broken"]),
        (scenes.aborted, ["safety.errors: failures: canary 24 of 2000", "aborting → aborted, step"]),
        (scenes.promoted, ["✓ promote"]),
    ],
)
def test_other_phases(scene: Callable[[], RolloutState], words: list[str]) -> None:
    """Each says what matters in it."""
    text = page(scene())
    for word in words:
        assert word in text


def test_the_list_fits_a_terminal() -> None:
    """One line a rollout; reasons and refused files below."""
    documents = [scenes.document(replace(scene(), name=scene.__name__)) for scene in SCENES]
    split = {"model": "digits", "error": "", "arms": [{"name": "1", "weight_ppm": 900_000}]}
    files = [{"path": "bad.yaml", "error": "bad.yaml:3: no such gate"}, {"path": "good.yaml", "error": ""}]
    index = {"now": scenes.NOW_S, "rollouts": documents, "splits": [split], "files": files}
    lines = drawn(rollout_table(index)).splitlines()
    assert len([line for line in lines if " fraud-score " in line]) == len(SCENES)
    assert any(line.startswith("aborted: safety.errors") for line in lines)
    assert lines[-1] == "bad.yaml:3: no such gate"
    assert any("digits" in line and "1 90 %" in line for line in lines)


def test_rates() -> None:
    """The interval is that of Wilson's score; without units there is nothing to say."""
    assert rate(4, 2000) == "0.2 % (0.078 to 0.51)"
    assert rate(0, 100) == "0 % (0 to 3.7)"
    assert rate(0, 300) == "0 % (0 to 1.3)"
    assert rate(300, 300) == "100 % (99 to 100)"
    assert rate(0, 0) == "-"
