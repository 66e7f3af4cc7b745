"""Draws a rollout for a terminal: where it stands, its arms side by side, its gates against their bounds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
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
_HISTORY: Final = 6


def rollout_table(index: dict[str, Any]) -> RenderableType:
    """Return every rollout, split and refused file, one line each."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("ROLLOUT", "MODEL", "PHASE", "STEP", "CANARY", "SINCE", "REASON"):
        table.add_column(column, overflow="fold")
    for row in index.get("rollouts", ()):
        table.add_row(
            row["name"],
            row["model"],
            _phase(row),
            _step(row),
            percent(row["weight_ppm"]),
            ago(index["now"] - row["since"]),
            row["reason"],
        )
    for split in index.get("splits", ()):
        shares = ", ".join(f"{arm['name']} {percent(arm['weight_ppm'])}" for arm in split["arms"])
        table.add_row("-", split["model"], "split", "", shares, "", split["error"])
    errors = [Text(file["error"], style="red") for file in index.get("files", ()) if file["error"]]
    return Group(table, *errors)


def rollout_page(document: dict[str, Any]) -> RenderableType:
    """Return everything about one rollout.

    Args:
        document: as the administration port gives it, with `now`.
    """
    now = float(document.get("now") or time.time())
    parts: list[RenderableType] = [_headline(document, now), _targets(document)]
    if document["file"]["error"]:
        parts.append(Text(f"the file is not in force: {document['file']['error']}", style="red"))
    if document["arms"]:
        parts += [Text(), _arms(document)]
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
            return f"{seconds / size:.1f} {unit}"
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


def _headline(document: dict[str, Any], now: float) -> Text:
    text = Text.assemble((document["name"], "bold"), "  ", _phase(document))
    if step := _step(document):
        text.append(f"  step {step}")
    text.append(f"  for {ago(now - document['since'])}")
    if document["reason"]:
        text.append(f"\n{document['reason']}", style="dim")
    weight = document["weight_ppm"]
    filled = round(_BAR * weight / 1_000_000)
    text.append("\ncanary ")
    text.append("█" * filled, style="cyan")
    text.append("░" * (_BAR - filled) + f" {percent(weight)}")
    bake = document["bake"]
    if bake["min_s"] is not None:
        text.append(f"   baked {ago(bake['served_s'])} of {ago(bake['min_s'])}")
        if bake["max_s"] is not None:
            text.append(f", {ago(bake['max_s'])} at most")
    return text


def _targets(document: dict[str, Any]) -> Text:
    text = Text(f"model {document['model']}", style="dim")
    for arm, target in document["targets"].items():
        version = "not resolved" if target["version"] is None else f"version {target['version']}"
        named = f" ({target['text']})" if target["text"] else ""
        text.append(f"   {arm} {version}{named}")
    return text


def _arms(document: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("ARM", "REQUESTS", "UNITS", "ERRORS", "RATE", "SLOW", "FALLBACKS", "CRASHES"):
        table.add_column(column, justify="left" if column == "ARM" else "right")
    for name, counts in sorted(document["arms"].items(), key=lambda item: (item[0] != "stable", item[0])):
        slow = ", ".join(share(count, counts["measured"]) for count in counts["exceeded"])
        table.add_row(
            name,
            str(counts["requests"]),
            str(counts["units"]),
            str(counts["errors"]),
            share(counts["errors"], counts["units"]),
            slow,
            str(counts["fallbacks"]),
            str(counts["crashes"]),
        )
    return table


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


def _gates(gates: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("GATE", "VERDICT", "HARM", "PASS", "WHY"):
        table.add_column(column, overflow="fold")
    for gate in gates:
        numbers = gate["numbers"]
        table.add_row(
            f"{gate['group']}/{gate['name']}",
            Text(gate["verdict"], style=_VERDICT_STYLES.get(gate["verdict"], "")),
            bar(numbers.get("log_e_harm"), numbers.get("log_bound_harm"), "red"),
            bar(numbers.get("log_e_pass"), numbers.get("log_bound_pass"), "green"),
            gate["reason"],
        )
    return table


def bar(evidence: float | None, bound: float | None, style: str) -> Text:
    """Return evidence as a bar that is full at its bound; nothing where there is none."""
    if evidence is None or not bound:
        return Text()
    width = 10
    filled = round(width * min(1.0, max(0.0, evidence / bound)))
    return Text.assemble(("█" * filled, style), "░" * (width - filled), f" {evidence:.1f}/{bound:.1f}")


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
    for column in ("WHEN", "FROM", "TO", "WHO", "WHY"):
        table.add_column(column, overflow="fold")
    for move in reversed(moves):
        table.add_row(f"{ago(now - move['at'])} ago", move["from"], move["to"], move["who"], move["reason"])
    return table
