"""Prints a plan: tables on a terminal, the same as plain text where the output is piped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.commands.model_page import printable
from gateway.commands.plan_estimate import WORST, about
from gateway.config.rollout_values import duration_text

if TYPE_CHECKING:
    from gateway.commands.plan import Plan
    from gateway.commands.plan_estimate import Assumed, GateEstimate, StepEstimate

_TWICE = 2.0
_PIPE_WIDTH = 200


def print_plan(plan: Plan) -> None:
    """Print a plan to standard output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    out = console.print
    out(Text(printable(f"{plan.name}: model {plan.model}, {plan.path}, {plan.hash[:12]}"), style="bold"))
    out(Text(printable(f"change    {plan.change.text}")))
    if plan.steps:
        out(Text(printable(f"traffic   {_assumed(plan.assumed)}")))
    for line in plan.capacity:
        out(Text(printable(f"capacity  {line}")))
    if plan.steps:
        out()
        out(_table(plan))
        out(Text(_total(plan)))
    for warning in plan.warnings:
        out(Text(printable(f"warning: {warning}"), style="yellow"))


def _assumed(assumed: Assumed) -> str:
    rates = ", ".join(f"{kind} {rate:.3g}" for kind, rate in assumed.rates.items())
    if assumed.requests_per_s is None:
        return f"not known{f' ({assumed.source})' if assumed.source else ''}; rates of stable: {rates}"
    return f"{assumed.requests_per_s:,.4g} requests/s ({assumed.source}); rates of stable: {rates}"


def _table(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("step", "gate"):
        table.add_column(name, no_wrap=True)
    for name in ("min", "max", "passes in", "after events", "2x found in", f"{WORST:g}x found in"):
        table.add_column(name, justify="right")
    for step in plan.steps:
        _add_step(table, step)
    return table


def _add_step(table: Table, step: StepEstimate) -> None:
    per_s = "" if step.canary_per_s is None else f", {step.canary_per_s:.3g}/s"
    table.add_row(
        Text(f"{step.index + 1} {step.what}{per_s}", style="bold"),
        Text(step.require),
        duration_text(step.min_s) if step.min_s else "",
        "" if step.max_s is None else duration_text(step.max_s),
        _likely(step),
    )
    for gate in step.gates:
        _add_gate(table, gate)
    for name in step.left_out:
        table.add_row("", Text(name, style="dim"), "", "", Text("not in a shadow step", style="dim"))


def _add_gate(table: Table, gate: GateEstimate) -> None:
    table.add_row(
        "",
        Text(printable(gate.name)),
        "",
        "",
        "" if gate.pass_s is None else about(gate.pass_s),
        f"{gate.events:,.0f}" if gate.events and gate.events < 1e12 else "",
        about(gate.harm_s[_TWICE]) if _TWICE in gate.harm_s else "",
        about(gate.harm_s[WORST]) if WORST in gate.harm_s else "",
    )


def _likely(step: StepEstimate) -> str:
    if step.likely_s is None or step.what == "promote":
        return ""
    if step.max_s is None and not step.min_s:
        return "people"
    return about(step.likely_s)


def _total(plan: Plan) -> str:
    if plan.likely_s is None:
        return "\nHow long it takes depends on the traffic."
    return f"\nWith a canary as good as stable: about {about(plan.likely_s)}, waits for people left out."
