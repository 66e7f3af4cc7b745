"""Pages of what happened: the alarm ledger, and how the log gets here."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gateway.monitor.pages import words
from gateway.monitor.pages.blocks import Badge, Block, Chart, Controls, Facts, Link, Notice, Page, Table, Text
from gateway.monitor.pages.charts import comparisons
from gateway.monitor.pages.places import (
    ALARMS,
    FLEET,
    PIPELINE,
    badges,
    model_path,
    range_choice,
    selected,
    standing,
    tabs,
)

if TYPE_CHECKING:
    from gateway.monitor.pages.asked import Asked
    from gateway.monitor.pages.shown import AlarmsShown, PipelineShown, ProducerShown
    from gateway.monitor.pages.view import MonitorView
    from gateway.monitor.values import Alarm

_LISTED = 200
_SCORED = frozenset({"drift", "quality"})


async def alarms_page(view: MonitorView, asked: Asked, model: str = "") -> Page:
    """Return the ledger, of one model or of all."""
    period = asked.period("30d")
    found = await view.alarms(period, model)
    count = sum(alarm.cleared_s is None for alarm in found.alarms)
    blocks = (Controls((range_choice(asked, "30d"),)), *alarm_blocks(found, asked.now_s))
    if not model:
        tabs_shown = (FLEET, ALARMS, PIPELINE)
        return Page(
            title="Alarms", blocks=blocks, badges=(standing(count),), tabs=tabs_shown, here=ALARMS.href
        )
    shown = await view.model(model)
    return Page(
        title=model,
        blocks=blocks,
        badges=badges(shown),
        trail=(FLEET,),
        tabs=tabs(model, asked),
        here=model_path(model, "/alarms", **selected(asked)),
    )


def alarm_blocks(found: AlarmsShown, now_s: float) -> list[Block]:
    """Return expected against observed alarms and the ledger; also used by reports."""
    blocks: list[Block] = [
        Facts(
            (
                ("raised", words.number(found.raised)),
                ("false ones expected, at most", words.number(found.expected_false)),
                ("declared", found.budget),
            )
        )
    ]
    heads = ("What", "State", "Severity", "Raised", "Lasted", "Why")
    rows = tuple(_alarm_row(alarm, now_s) for alarm in found.alarms[:_LISTED])
    blocks.append(Table("Alarms, latest first", heads, rows, empty="No alarm in this period."))
    if len(found.alarms) > _LISTED:
        blocks.append(Text(f"{len(found.alarms) - _LISTED} earlier alarms are not listed.", "dim"))
    return blocks


async def pipeline_page(view: MonitorView, asked: Asked) -> Page:
    """Return the page about the log's way."""
    found = await view.pipeline()
    return Page(
        title="Pipeline",
        blocks=tuple(pipeline_blocks(found, asked.now_s)),
        badges=(Badge(words.counted(len(found.producers), "gateway")),),
        tabs=(FLEET, ALARMS, PIPELINE),
        here=PIPELINE.href,
    )


def pipeline_blocks(found: PipelineShown, now_s: float) -> list[Block]:
    """Return producers, flow and lag."""
    unaccounted = sum(abs(rows) for rows in map(missing_rows, found.producers) if rows is not None)
    state = words.size(found.state_bytes)
    if math.isfinite(found.state_limit_bytes):
        state += f" of {words.size(found.state_limit_bytes)}"
    latest = found.lag_s[-1] if len(found.lag_s) else math.nan
    blocks: list[Block] = [
        Facts(
            (
                ("last checkpoint", words.ago(found.checkpoint_s, now_s)),
                ("lag, p99", words.duration(latest)),
                ("memory of panes", state),
                ("rows unaccounted for", Badge(words.number(unaccounted), "bad" if unaccounted else "good")),
            )
        )
    ]
    if unaccounted:
        blocks.append(
            Notice("Produced rows differ from applied, outstanding and dropped ones together.", "bad")
        )
    blocks.append(_producers(found, now_s))
    if len(found.starts_s):
        total = sum(map(sum, found.dropped.values()))
        about = (
            f"{words.number(sum(found.applied))} rows applied, {words.number(total)} dropped or sampled out."
        )
        blocks += [
            Chart("flow", "Rows", about, comparisons.flow, found),
            Chart("lag", "Lag", f"{words.duration(latest)} at the end.", comparisons.lag, found),
        ]
    counters = tuple((name, words.number(value)) for name, value in sorted(found.counters.items()))
    blocks.append(Table("Counters", ("What", "Count"), counters, empty="Nothing was counted."))
    return blocks


def missing_rows(producer: ProducerShown) -> int | None:
    """Return produced rows that nothing accounts for; None: the gateway does not say what is on its way."""
    if not producer.outstanding and not producer.connected:
        return None
    known = producer.applied + sum(producer.outstanding.values()) + sum(producer.dropped.values())
    return producer.produced - known


def _producers(found: PipelineShown, now_s: float) -> Table:
    heads = (
        "Gateway",
        "Stream",
        "Produced",
        "Applied",
        "On the way",
        "Dropped",
        "Credit",
        "Spool",
        "Lag",
        "Last",
    )
    rows = tuple(
        (
            producer.producer,
            Badge("connected", "good") if producer.connected else Badge("away", "bad"),
            words.number(producer.produced),
            words.number(producer.applied),
            words.number(sum(producer.outstanding.values())),
            ", ".join(f"{reason} {words.number(n)}" for reason, n in producer.dropped.items() if n) or "none",
            words.size(producer.credit_bytes),
            words.size(producer.spool_bytes),
            words.duration(producer.lag_s),
            words.ago(producer.last_s, now_s),
        )
        for producer in found.producers
    )
    return Table("Gateways", heads, rows, empty="No gateway has connected yet.")


def _alarm_row(alarm: Alarm, now_s: float) -> tuple[str | Link | Badge, ...]:
    key = alarm.key
    place = model_path(key.model, version=str(key.version), arm=key.arm, segment=key.segment)
    if alarm.kind in _SCORED:
        place = model_path(
            key.model,
            "/signal",
            version=str(key.version),
            arm=key.arm,
            segment=key.segment,
            signal=alarm.subject,
        )
    elif alarm.kind != "pipeline":
        place = model_path(key.model, "/performance", version=str(key.version), arm=key.arm)
    else:
        place = PIPELINE.href
    stands = alarm.cleared_s is None
    return (
        Link(f"{key.model}: {alarm.subject}", place),
        Badge("stands", "bad") if stands else Badge("cleared", "good"),
        f"{alarm.severity}, {alarm.kind.replace('_', ' ')}",
        words.moment(alarm.raised_s),
        words.duration((now_s if alarm.cleared_s is None else alarm.cleared_s) - alarm.raised_s),
        alarm.summary,
    )
