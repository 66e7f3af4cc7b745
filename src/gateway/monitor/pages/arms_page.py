"""The page about one arm against another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.monitor.pages import words
from gateway.monitor.pages.blocks import (
    Badge,
    Block,
    Chart,
    Choice,
    Controls,
    Facts,
    Heading,
    Notice,
    Page,
    Text,
)
from gateway.monitor.pages.charts import comparisons
from gateway.monitor.pages.places import FLEET, badges, model_path, selected, tabs

if TYPE_CHECKING:
    from gateway.monitor.pages.asked import Asked
    from gateway.monitor.pages.shown import ArmsShown, ModelShown
    from gateway.monitor.pages.view import MonitorView

_TONES = {"pass": "good", "fail": "bad", "inconclusive": "wait"}
_STABLE, _CANARY = "stable", "canary"


async def arms_page(view: MonitorView, asked: Asked, model: str) -> Page:
    """Return the page that compares two arms of a model."""
    shown = await view.model(model)
    names = arms_of(shown)
    candidate = asked.text("candidate") or _default(names, _CANARY, -1)
    baseline = asked.text("baseline") or _default(names, _STABLE, 0)
    options = tuple((name, name) for name in names)
    blocks: list[Block] = []
    if len(names) < 2:
        blocks.append(Text("Only one arm and version has been seen: there is nothing to compare."))
    else:
        chosen = (
            Choice("candidate", "Candidate", options, candidate),
            Choice("baseline", "Baseline", options, baseline),
        )
        blocks.append(Controls(chosen))
        blocks += arms_blocks(await view.arms(model, candidate, baseline))
    return Page(
        title=model,
        blocks=tuple(blocks),
        badges=badges(shown),
        trail=(FLEET,),
        tabs=tabs(model, asked),
        here=model_path(model, "/arms", **selected(asked)),
    )


def arms_of(shown: ModelShown) -> list[str]:
    """Return what can be compared: named arms first, then version numbers as text."""
    arms = dict.fromkeys(arm for version in shown.versions for arm in version.arms if arm)
    return [*arms, *(str(version.version) for version in shown.versions)]


def arms_blocks(found: ArmsShown) -> list[Block]:
    """Return the verdict and its pictures; also used by reports."""
    verdict = found.verdict
    blocks: list[Block] = [
        Facts(
            (
                ("verdict", Badge(verdict.verdict, _TONES.get(verdict.verdict, "wait"))),
                ("coverage", words.percent(verdict.coverage)),
                ("looks", words.number(max((len(m.ends_s) for m in found.metrics), default=0))),
            )
        ),
        Notice(verdict.reason, "bad") if verdict.verdict == "fail" else Text(verdict.reason),
    ]
    for metric in found.metrics:
        pairs = "pairs of the same requests" if metric.paired else "rows"
        last = (
            f"{words.number(metric.low[-1])} to {words.number(metric.high[-1])}"
            if len(metric.low)
            else "nothing yet"
        )
        about = f"95 % at all looks together: {last}, from {words.number(metric.pairs)} {pairs}."
        blocks.append(Chart(f"funnel-{metric.metric}", metric.metric, about, comparisons.funnel, metric))
    if found.signals:
        blocks.append(Heading("Distributions"))
    for signal in found.signals:
        about = f"Share of rows up to each value of {signal.signal}."
        blocks.append(Chart(f"overlay-{signal.signal}", signal.signal, about, comparisons.overlay, signal))
    return blocks


def _default(names: list[str], wanted: str, place: int) -> str:
    if wanted in names or not names:
        return wanted
    return names[place]
