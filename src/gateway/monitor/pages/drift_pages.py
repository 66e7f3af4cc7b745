"""Pages about drift: a model's signals over time, and one signal in full."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from gateway.monitor.pages import words
from gateway.monitor.pages.blocks import (
    Badge,
    Block,
    Cell,
    Chart,
    Facts,
    Heading,
    Link,
    Page,
    Search,
    Table,
    Text,
)
from gateway.monitor.pages.charts import distributions
from gateway.monitor.pages.charts.performance import Effect, Forest, forest
from gateway.monitor.pages.charts.scores import SAID, Line, Timeline, coverage_strip, ratio, timeline
from gateway.monitor.pages.fleet import heat_blocks
from gateway.monitor.pages.places import FLEET, badges, controls, model_path, no_profile, selected, tabs
from gateway.monitor.pages.ranking import by_statistic, ranked
from gateway.monitor.pages.shown import ScoreQuery
from gateway.monitor.values import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.monitor.pages.asked import Asked
    from gateway.monitor.pages.ranking import Ranked
    from gateway.monitor.pages.shown import CoverageShown, Distribution, Period
    from gateway.monitor.pages.view import MonitorView
    from gateway.monitor.values import Score

_LINES: Final = 6
_ROWS: Final = 24
_SEGMENTS: Final = 40
_NAMED: Final = 1000
_TONES: Final = {Finding.OK: "good", Finding.DRIFT: "bad"}


async def model_page(view: MonitorView, asked: Asked, model: str) -> Page:
    """Return the page about a model's drift."""
    selection, period, search = asked.selection(model), asked.period(), asked.text("search")
    shown = await view.model(model)
    query = ScoreQuery(window=asked.window(), period=period, selection=selection, search=search)
    signals = ranked(await view.scores(query))
    coverage = await view.coverage(selection, period)
    names = tuple(signal.name for signal in shown.signals[:_NAMED])
    blocks: list[Block] = [
        controls(shown, asked, search=Search("search", "Signal", search, names)),
        *no_profile(shown, selection),
    ]
    if signals:
        blocks += [_timeline(signals, coverage, period), _strip(coverage)]
        blocks += heat_blocks("heat", signals, period, _ROWS)
    else:
        blocks += [Text("No signal was scored in this period."), _strip(coverage)]
    blocks.append(_table(signals, asked, model))
    return Page(
        title=model,
        blocks=tuple(blocks),
        badges=badges(shown),
        trail=(FLEET,),
        tabs=tabs(model, asked),
        here=model_path(model, **selected(asked)),
    )


async def signal_page(view: MonitorView, asked: Asked, model: str) -> Page:
    """Return the page about one signal."""
    selection, period, signal = asked.selection(model), asked.period(), asked.required("signal")
    shown = await view.model(model)
    everywhere = ScoreQuery(
        window=asked.window(), period=period, selection=selection, signal=signal, every_segment=True
    )
    scores = await view.scores(everywhere)
    found = await view.distribution(selection, signal, period)
    coverage = await view.coverage(selection, period)
    statistics = by_statistic([s for s in scores if s.key.segment == selection.segment], signal)
    names = tuple(s.name for s in shown.signals[:_NAMED])
    blocks: list[Block] = [
        controls(shown, asked, search=Search("signal", "Signal", signal, names)),
        *no_profile(shown, selection),
        Facts(
            (
                ("rows", words.number(found.rows)),
                ("reference rows", words.number(found.reference_rows)),
                *_statistic_facts(statistics),
            )
        ),
        *distribution_blocks(found),
        Heading("Scores"),
        *(_statistic(name, of, coverage, period) for name, of in statistics.items()),
        _strip(coverage),
        *_segments(scores),
    ]
    kept = selected(asked)
    return Page(
        title=signal,
        blocks=tuple(blocks),
        badges=badges(shown),
        trail=(FLEET, Link(model, model_path(model, **kept))),
        tabs=tabs(model, asked),
        here=model_path(model, **kept),
    )


def distribution_blocks(found: Distribution) -> list[Block]:
    """Return the pictures of one signal's values; also used by reports."""
    blocks: list[Block] = []
    key = found.signal
    if found.numeric:
        gap = _largest_gap(found)
        blocks += [
            Chart(
                f"histogram-{key}",
                "Now against the reference",
                f"Values of {key}. {gap}",
                distributions.histogram,
                found.numeric,
            ),
            Chart(f"ecdf-{key}", "Where they differ", gap, distributions.difference, found.numeric),
            Chart(f"fan-{key}", "Quantiles over time", _median(found), distributions.fan, found),
        ]
    if found.category:
        novel = f"{words.percent(found.category.novel)} of rows have values that the reference never had."
        blocks += [
            Chart(
                f"bars-{key}",
                "Categories now against the reference",
                novel,
                distributions.category_bars,
                found.category,
            ),
            Chart(f"stack-{key}", "Categories over time", novel, distributions.category_stack, found),
            Table(
                "New values",
                ("Value", "Rows, about"),
                tuple((name, words.number(count)) for name, count in found.category.novel_values),
                empty="No new value was seen 20 times.",
            ),
        ]
    if found.embedding:
        blocks.append(
            Chart(
                f"axes-{key}",
                "On the reference's principal axes",
                "The centroid of each step.",
                distributions.embedding,
                found,
            )
        )
    if not found.rows:
        blocks.append(Text("No rows in this period."))
    was = words.percent(found.reference_missing)
    missing = f"{words.percent(_last(found.missing))} missing at the end, {was} in the reference."
    blocks.append(
        Chart(f"quality-{key}", "Missing, invalid, out of range", missing, distributions.quality, found)
    )
    return blocks


def _timeline(signals: Sequence[Ranked], coverage: CoverageShown, period: Period) -> Chart:
    lines = tuple(Line(signal.name, signal.worst) for signal in signals[:_LINES])
    worst = signals[0]
    about = (
        f"{worst.name} is the worst signal, {words.rough(ratio(worst.peak))} times its threshold at most."
        if worst.peak
        else ""
    )
    return Chart(
        "timeline",
        "Worst signals against their thresholds",
        about or "No signal has enough rows to be judged.",
        timeline,
        Timeline(period, lines, tuple(coverage.markers)),
    )


def _statistic(name: str, scores: tuple[Score, ...], coverage: CoverageShown, period: Period) -> Chart:
    last = scores[-1]
    value, threshold = words.number(last.value), words.number(last.threshold)
    about = f"{name} is {value} at the end, its threshold {threshold}: {SAID[last.finding]}."
    line = Timeline(period, (Line(name, scores),), tuple(coverage.markers), relative=False)
    return Chart(f"score-{name}", name, about, timeline, line)


def _statistic_facts(statistics: dict[str, tuple[Score, ...]]) -> tuple[tuple[str, Cell], ...]:
    return tuple(
        (name, Badge(SAID[of[-1].finding], _TONES.get(of[-1].finding, "wait")))
        for name, of in statistics.items()
    )


def _strip(coverage: CoverageShown) -> Chart:
    known = [value for value in coverage.ratio if not math.isnan(value)]
    low = (
        f"At the lowest {words.percent(min(known))} of served rows were seen."
        if known
        else "Nothing was served."
    )
    moments = "".join(f" {words.moment(m.at_s)}: {m.text}." for m in coverage.markers[-5:])
    return Chart("coverage", "Coverage and what happened", low + moments, coverage_strip, coverage)


def _table(signals: Sequence[Ranked], asked: Asked, model: str) -> Table:
    kept = selected(asked)
    rows = tuple(
        (
            Link(signal.name, model_path(model, "/signal", **kept, signal=signal.name)),
            Badge(SAID[signal.latest.finding], _TONES.get(signal.latest.finding, "wait")),
            signal.latest.statistic,
            words.number(signal.latest.value),
            words.number(signal.latest.threshold),
            str(signal.drifted),
            words.number(signal.latest.rows),
        )
        for signal in signals[: _ROWS * 2]
    )
    heads = ("Signal", "Now", "Statistic", "Value", "Threshold", "Drifted windows", "Rows")
    return Table("Signals, worst first", heads, rows, empty="No signal to show.")


def _segments(scores: Sequence[Score]) -> list[Block]:
    latest: dict[str, Score] = {}
    for score in scores:
        held = latest.get(score.key.segment)
        if held is None or (score.end_s, _known(score)) >= (held.end_s, _known(held)):
            latest[score.key.segment] = score
    if len(latest) < 2:
        return []
    worst = sorted(latest.items(), key=lambda entry: -_known(entry[1]))[:_SEGMENTS]
    effects = tuple(
        Effect(name or "all rows", ratio(score), math.nan, math.nan, score.rows) for name, score in worst
    )
    about = f"{worst[0][0] or 'All rows'} is the farthest from the reference."
    return [
        Heading("Segments"),
        Chart(
            "segments",
            "Latest window by segment",
            about,
            forest,
            Forest("score / threshold", effects, (1.0,)),
        ),
    ]


def _known(score: Score) -> float:
    share = ratio(score)
    return share if math.isfinite(share) else -1.0


def _largest_gap(found: Distribution) -> str:
    assert found.numeric
    total, worst, at = 0.0, 0.0, math.nan
    edges = found.numeric.edges
    for edge, now, was in zip(edges, found.numeric.current, found.numeric.reference, strict=False):
        total += now - was
        if abs(total) > abs(worst):
            worst, at = total, edge
    side = "more" if worst > 0 else "fewer"
    return (
        f"{words.percent(abs(worst))} {side} rows than in the reference lie at or below {words.number(at)}."
    )


def _median(found: Distribution) -> str:
    assert found.numeric
    middle = len(found.numeric.percents) // 2
    medians = [step[middle] for step in found.numeric.quantiles if not math.isnan(step[middle])]
    if not medians:
        return "No rows."
    was = words.number(found.numeric.reference_quantiles[middle])
    first, last = words.number(medians[0]), words.number(medians[-1])
    return f"The median went from {first} to {last}; {was} in the reference."


def _last(values: Sequence[float]) -> float:
    return values[-1] if len(values) else math.nan
