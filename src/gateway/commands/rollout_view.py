"""Draws a rollout for a terminal: where it stands, its arms side by side, its gates against their bounds."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

_PHASE_STYLES: Final[Mapping[str, str]] = {
    "baking": "cyan",
    "holding": "yellow",
    "awaiting_approval": "bold yellow",
    "paused_step": "yellow",
    "promoting": "green",
    "rollback_window": "green",
    "promoted": "green",
    "aborting": "bold red",
    "aborted": "bold red",
    "rolling_back": "bold red",
    "rolled_back": "bold red",
}
_VERDICT_STYLES: Final[Mapping[str, str]] = {"pass": "green", "harm": "bold red", "hold": "yellow"}
_BAR: Final = 24
_GATE_BAR: Final = 8
_HISTORY: Final = 6
_SERVING: Final = frozenset({"baking", "holding", "paused_step", "rollback_window"})
"""Phases in which time goes towards what the step asks for."""
_Z95: Final = 1.959964


def rollout_table(index: dict[str, Any]) -> RenderableType:
    """Return every rollout, split and refused file, one line each, and below what there is to say of them."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("ROLLOUT", "MODEL", "PHASE", "STEP", "CANARY", "SINCE"):
        table.add_column(column, overflow="fold")
    for row in index.get("rollouts", ()):
        table.add_row(
            row["name"],
            row["model"],
            _phase(row),
            _step(row),
            "" if row["phase"] == "promoted" else percent(row["weight_ppm"]),
            ago(index["now"] - row["since"]),
        )
    for split in index.get("splits", ()):
        shares = ", ".join(f"{arm['name']} {percent(arm['weight_ppm'])}" for arm in split["arms"])
        table.add_row("-", split["model"], "split", "", shares, "")
    said = [
        Text(f"{row['name']}: {row['reason']}", "dim") for row in index.get("rollouts", ()) if row["reason"]
    ]
    errors = [
        Text(f"{row['model']}: {row['error']}", "red") for row in index.get("splits", ()) if row["error"]
    ]
    errors += [Text(file["error"], "red") for file in index.get("files", ()) if file["error"]]
    return Group(table, *said, *errors)


def rollout_page(document: dict[str, Any]) -> RenderableType:
    """Return everything about one rollout.

    Args:
        document: as the administration port gives it, with `now`.
    """
    now = float(document.get("now") or time.time())
    parts: list[RenderableType] = [_headline(document, now), _targets(document)]
    if steps := document.get("steps"):
        parts.append(_steps(steps, document))
    if document["file"]["error"]:
        parts.append(Text(f"the file is not in force: {document['file']['error']}", style="red"))
    if document["arms"]:
        parts += [Text(), _arms(document["arms"], document.get("thresholds_s", ()))]
    if document["shadow_counts"]:
        parts += [Text(), _shadows(document["shadow_counts"])]
    if document["gates"]:
        parts += [Text(), _gates(document["gates"])]
    if document["approvals"]["needed"]:
        parts += [Text(), _approvals(document["approvals"])]
    if document["history"]:
        parts += [Text(), _history(document["history"][-_HISTORY:], now)]
    return Group(*parts)


def percent(ppm: int) -> str:
    """Return parts per million as per cent."""
    return f"{ppm / 10_000:g} %"


def ago(seconds: float) -> str:
    """Return a duration in its largest unit."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{round(seconds / size, 1):g} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _phase(row: dict[str, Any]) -> Text:
    text = Text(row["phase"].replace("_", " "), style=_PHASE_STYLES.get(row["phase"], ""))
    if row["paused"]:
        text.append(" (paused)", style="yellow")
    if row["frozen"]:
        text.append(" (frozen)", style="yellow")
    return text


def _step(row: dict[str, Any]) -> str:
    step = row["step"]
    return f"{step['index'] + 1}/{step['of']} {step['kind']}" if step["kind"] else ""


def _steps(steps: Sequence[dict[str, Any]], document: dict[str, Any]) -> Text:
    """Return every step in a line, what is done ticked off, the present one marked."""
    present = document["step"]["index"]
    if document["phase"] == "promoted":
        present = len(steps)
    text = Text()
    for index, step in enumerate(steps):
        mark, style = (
            ("✓", "green") if index < present else ("▸", "bold") if index == present else ("·", "dim")
        )
        text.append(f"{mark} {_step_name(step)}   ", style)
    text.rstrip()
    return text


def _step_name(step: dict[str, Any]) -> str:
    match step["kind"]:
        case "shadow":
            return f"shadow {percent(step['sample_ppm'])}"
        case "weight":
            return f"canary {percent(step['weight_ppm'])}"
        case "pause":
            return f"pause {ago(step['duration_s'])}" if "duration_s" in step else "pause"
        case "approve":
            return f"approval by {step['count']}"
        case kind:
            return str(kind)


def _headline(document: dict[str, Any], now: float) -> Text:
    text = Text.assemble((document["name"], "bold"), "  ", _phase(document))
    if step := _step(document):
        text.append(f"  step {step}")
    text.append(f"  for {ago(now - document['since'])}")
    if document["model"] != document["name"]:
        text.append(f"  model {document['model']}", "dim")
    if document["reason"]:
        text.append(f"\n{document['reason']}", style="dim")
    if document["phase"] == "promoted":
        return text
    weight = document["weight_ppm"]
    filled = round(_BAR * weight / 1_000_000)
    text.append("\ncanary ")
    text.append("█" * filled, style="cyan")
    text.append("░" * (_BAR - filled) + f" {percent(weight)}")
    bake = document["bake"]
    if bake["min_s"] is not None and document["phase"] in _SERVING:
        text.append(f"   baked {ago(bake['served_s'])} of {ago(bake['min_s'])}")
        if bake["max_s"] is not None and bake["max_s"] > bake["min_s"]:
            text.append(f", {ago(bake['max_s'])} at most")
    return text


def _targets(document: dict[str, Any]) -> Text:
    text = Text(style="dim")
    for arm, target in document["targets"].items():
        version = "not resolved" if target["version"] is None else f"version {target['version']}"
        named = f" ({target['text']})" if target["text"] else ""
        text.append(f"{arm} {version}{named}   ")
    text.rstrip()
    return text


def _arms(arms: dict[str, Any], thresholds_s: Sequence[float]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    slow = [f"> {1000 * threshold_s:g} ms" for threshold_s in thresholds_s]
    for column in ("ARM", "REQUESTS", "ERRORS", *slow, "FALLBACKS", "CRASHES"):
        table.add_column(column, justify="left" if column == "ARM" else "right")
    for name, counts in sorted(arms.items(), key=lambda item: (item[0] != "stable", item[0])):
        exceeded = [*counts["exceeded"], *[0] * len(slow)][: len(slow)]
        table.add_row(
            name,
            f"{counts['requests']:,}",
            rate(counts["errors"], counts["units"]),
            *(rate(count, counts["measured"]) for count in exceeded),
            f"{counts['fallbacks']:,}",
            f"{counts['crashes']:,}",
        )
    return table


def rate(events: float, units: float) -> str:
    """Return a rate as per cent with its 95 % score interval (Wilson 1927); a dash without units."""
    if not units:
        return "-"
    part = min(1.0, events / units)
    spread = _Z95 * math.sqrt(part * (1 - part) / units + _Z95**2 / (4 * units**2))
    centre, scale = part + _Z95**2 / (2 * units), 1 + _Z95**2 / units
    low, high = (centre - spread) / scale if events else 0.0, (centre + spread) / scale if part < 1 else 1.0
    return f"{100 * part:.3g} % ({_brief(100 * low)} to {_brief(100 * high)})"


def _brief(number: float) -> str:
    return f"{number:.2g}" if number < 10 else f"{number:.0f}"


def share(count: float, of: float) -> str:
    """Return a share as per cent; a dash where there is nothing to share."""
    return f"{100 * count / of:.3g} %" if of else "-"


def _shadows(shadows: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("SHADOW", "MIRRORED", "COMPARED", "DISAGREE", "FAILED", "DROPPED"):
        table.add_column(column, justify="left" if column == "SHADOW" else "right")
    for name, counts in sorted(shadows.items()):
        dropped = ", ".join(f"{count} {why}" for why, count in sorted(counts["dropped"].items()) if count)
        table.add_row(
            name,
            str(counts["mirrored"]),
            str(counts["compared"]),
            f"{counts['disagreed']} ({share(counts['disagreed'], counts['compared'])})",
            str(counts["failed"]),
            dropped or "0",
        )
    return table


def _gates(gates: Sequence[dict[str, Any]]) -> RenderableType:
    """Return each gate's verdict with its evidence, and why; on one line where there is none to draw."""
    width = max(len(gate["name"]) for gate in gates)
    parts: list[RenderableType] = []
    for gate in gates:
        line = Text.assemble((f"{gate['name']:<{width}}  ", "bold"))
        line.append(f"{gate['verdict']:<9}  ", _VERDICT_STYLES.get(gate["verdict"], ""))
        bars = _bars(gate["numbers"])
        if bars:
            parts += [line.append_text(bars), Padding(Text(gate["reason"], "dim"), (0, 0, 0, 2))]
        else:
            parts.append(line.append(gate["reason"], "dim"))
    return Group(*parts)


def _bars(numbers: dict[str, Any]) -> Text:
    text = Text()
    for what, style in (("harm", "red"), ("pass", "green")):
        evidence, bound = numbers.get(f"log_e_{what}"), numbers.get(f"log_bound_{what}")
        if evidence is not None and bound:
            text.append(f"{what} ").append_text(bar(evidence, bound, style)).append("  ")
    text.rstrip()
    return text


def bar(evidence: float, bound: float, style: str) -> Text:
    """Return evidence as a bar that is full at its bound."""
    filled = round(_GATE_BAR * min(1.0, max(0.0, evidence / bound)))
    rounded = round(evidence, 1) + 0.0  # no minus before a zero
    return Text.assemble(("█" * filled, style), "░" * (_GATE_BAR - filled), f" {rounded:.1f}/{bound:.1f}")


def _approvals(approvals: dict[str, Any]) -> Text:
    text = Text(f"approvals: {len(approvals['given'])} of {approvals['needed']}", style="bold")
    if approvals["roles"]:
        text.append(f" by {', '.join(approvals['roles'])}")
    for one in approvals["given"]:
        text.append(f"\n  {one['who']}")
    text.append(f"\n  evidence {approvals['evidence_hash'][:16]}", style="dim")
    return text


def _history(moves: Sequence[dict[str, Any]], now: float) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("WHEN", "WHAT", "WHO", "WHY"):
        table.add_column(column, overflow="fold", no_wrap=column == "WHEN")
    for move in reversed(moves):
        what = move["to"] if move["from"] == move["to"] else f"{move['from']} → {move['to']}"
        if move["step"] >= 0:
            what += f", step {move['step'] + 1}"
        table.add_row(f"{ago(now - move['at'])} ago", what.replace("_", " "), move["who"], move["reason"])
    return table
