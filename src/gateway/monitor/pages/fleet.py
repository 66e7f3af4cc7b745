"""The first page: every model, its worst signals over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.monitor.pages import words
from gateway.monitor.pages.blocks import (
    Badge,
    Block,
    Chart,
    Controls,
    Heading,
    Link,
    Page,
    Search,
    Table,
    Text,
)
from gateway.monitor.pages.charts.scores import Heat, heat_map, ratio
from gateway.monitor.pages.places import ALARMS, FLEET, PIPELINE, covered, model_path, range_choice, standing
from gateway.monitor.pages.ranking import Ranked, by_model, ranked
from gateway.monitor.pages.shown import ScoreQuery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.monitor.pages.asked import Asked
    from gateway.monitor.pages.shown import ModelShown, Period
    from gateway.monitor.pages.view import MonitorView

MAPS: Final = 12
"""Models that get a heat map; the others are in the list."""

_ROWS: Final = 72
_LISTED: Final = 200


async def fleet_page(view: MonitorView, asked: Asked) -> Page:
    """Return the page about all models."""
    period, search = asked.period(), asked.text("search")
    models = await view.models()
    query = ScoreQuery(window=asked.window(), period=period, search=search)
    grouped = {model: ranked(scores) for model, scores in by_model(await view.scores(query)).items()}
    models = sorted(models, key=lambda shown: _badness(shown, grouped.get(shown.model, [])))
    drawn = [shown for shown in models if grouped.get(shown.model)][:MAPS]
    most = min(16, max(4, _ROWS // max(1, len(drawn))))
    blocks: list[Block] = [
        Controls((range_choice(asked), Search("search", "Signal", search))),
        Table(
            "Models",
            ("Model", "Alarms", "Worst signal", "Drifted signals", "Rows in a day", "Coverage"),
            tuple(_model_row(shown, grouped.get(shown.model, [])) for shown in models[:_LISTED]),
            empty="No gateway has logged a prediction yet.",
        ),
    ]
    if len(models) > _LISTED:
        blocks.append(Text(f"{len(models) - _LISTED} more models are not listed.", "dim"))
    if search and not drawn:
        blocks.append(Text(f"No signal has '{search}' in its name."))
    for shown in drawn:
        blocks += _map(shown.model, grouped[shown.model], period, most)
    bad = sum(shown.standing for shown in models)
    return Page(
        title="Fleet",
        blocks=tuple(blocks),
        badges=(standing(bad),),
        tabs=(FLEET, ALARMS, PIPELINE),
        here=FLEET.href,
    )


def heat_blocks(key: str, signals: Sequence[Ranked], period: Period, most: int) -> list[Block]:
    """Return the heat map of at most `most` signals, and what it leaves out."""
    shown = signals[:most]
    drifted = [signal.name for signal in signals if signal.drifted]
    about = (
        f"{words.counted(len(drifted), 'signal')} of {len(signals)} drifted: {', '.join(drifted[:5])}."
        if drifted
        else f"None of {words.counted(len(signals), 'signal')} drifted."
    )
    about += " Darker is nearer to the threshold, \u00d7 is drift, grey cannot be judged."
    heat = Heat(period, tuple(signal.row for signal in shown))
    blocks: list[Block] = [Chart(key, "Signals over time", about, heat_map, heat)]
    if len(signals) > most:
        blocks.append(
            Text(f"The {most} worst of {len(signals)} signals are shown; search for others.", "dim")
        )
    return blocks


def _map(model: str, signals: list[Ranked], period: Period, most: int) -> list[Block]:
    return [Heading(model, 2, model_path(model)), *heat_blocks(f"heat-{model}", signals, period, most)]


def _model_row(shown: ModelShown, signals: Sequence[Ranked]) -> tuple[str | Link | Badge, ...]:
    drifted = sum(signal.drifted > 0 for signal in signals)
    worst: str | Link = words.number(float("nan"))
    if signals and signals[0].peak:
        times = words.rough(ratio(signals[0].peak))
        worst = Link(
            f"{signals[0].name}, {times}\u00d7 threshold",
            model_path(shown.model, "/signal", signal=signals[0].name),
        )
    return (
        Link(shown.model, model_path(shown.model)),
        standing(shown.standing),
        worst,
        f"{drifted} of {len(signals)}" if signals else "none watched",
        words.number(shown.rows),
        covered(shown.coverage),
    )


def _badness(shown: ModelShown, signals: Sequence[Ranked]) -> tuple[int, int, str]:
    return -shown.standing, -sum(signal.drifted > 0 for signal in signals), shown.model
