"""Writes a report's figures as the Markdown tables of docs/performance.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from loadtests.page_entries import LARGE_IN_FLIGHT, OURS, SMALL_IN_FLIGHT
from loadtests.page_figures import DIRECT_ROWS, Entry, entries, request_bytes, shown, yardsticks
from loadtests.report import markdown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Record = Mapping[str, Any]

_SPOKEN: Final = {
    "http-binary": "HTTP, binary tensors",
    "http-raw": "HTTP, bare rows",
    "http-json": "HTTP, JSON",
    "grpc": "gRPC",
}


def page_tables(parts: Mapping[str, Sequence[Record]]) -> str:
    """Return a Markdown document: the machine, then the tables of each part that was measured."""
    machine = next((r for records in parts.values() for r in records if r["kind"] == "machine"), None)
    lines = [_machine(machine)] if machine else []
    writers: Mapping[str, Callable[[Sequence[Record]], Iterator[str]]] = {
        "small": _small,
        "dense": _dense,
        "latency": _latency,
        "large": _large,
    }
    for part, records in parts.items():
        found = entries(records)
        lines += [f"\n## {part}\n", *writers[part](records)]
        lines += ["", *_not_measured(found), *_wrong(found)]
    return "\n".join(lines) + "\n"


def _machine(machine: Record) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}, "
        f"{packages}; commit {machine['commit']}"
    )


def _not_measured(found: Sequence[Entry]) -> Iterator[str]:
    for entry in found:
        if not entry.runs:
            yield f"Not measured: {entry.label}: {entry.unavailable}"


def _wrong(found: Sequence[Entry]) -> Iterator[str]:
    for entry in found:
        if entry.has("errors") and (most := entry.figure("errors").most):
            problems = [problem for run in entry.runs for problem in run["problems"]]
            yield f"WRONG: {entry.label}: {most:.0f} errors: {'; '.join(problems[:3])}"


def _small(records: Sequence[Record]) -> Iterator[str]:
    found = [entry for entry in entries(records) if entry.runs]
    ours = {
        protocol: entry.figure("requests_per_s").median
        for entry in found
        for protocol in ("HTTP", "gRPC")
        if entry.label == f"{OURS}, {protocol}"
    }
    head = ["server", "protocol", "requests/s", "p50 ms", "p99 ms", "CPU us/request", "gateway's rate to its"]
    alike = sorted((entry for entry in found if not entry.point), key=_protocol_and_cost)
    yield f"digits, 1 row per request, {SMALL_IN_FLIGHT} in flight; `median (least-most)`\n"
    yield from markdown([head, *(_small_line(entry, ours) for entry in alike)])
    varied = [entry for entry in found if entry.point]
    if varied:
        yield "\nEvery request with a tensor, id, deadline and trace context of its own, 256 connections:\n"
        yield from markdown([head[:-1], *(_small_line(entry, {})[:-1] for entry in varied)])
    yield ""
    for rows, rate in yardsticks(records, "direct", "rows", "rows_per_s").items():
        yield f"ONNX Runtime called directly, batches of {rows}: {shown(rate, ',.0f')} rows/s  "


def _protocol_and_cost(entry: Entry) -> tuple[bool, float]:
    cost = entry.figure("cpu_us_per_request").median if entry.has("cpu_us_per_request") else 0.0
    return entry.scenario["protocol"] == "grpc", cost


def _small_line(entry: Entry, ours: Mapping[str, float]) -> list[str]:
    rate = entry.figure("requests_per_s").median
    protocol = "gRPC" if entry.scenario["protocol"] == "grpc" else "HTTP"
    ratio = f"{ours[protocol] / rate:.1f}" if protocol in ours and rate else "-"
    return [
        entry.runs[0]["target"],
        _SPOKEN[entry.scenario["protocol"]],
        entry.text("requests_per_s", ",.0f"),
        entry.text("p50_ms", ".1f"),
        entry.text("p99_ms", ".1f"),
        entry.text("cpu_us_per_request", ",.1f"),
        ratio,
    ]


def _dense(records: Sequence[Record]) -> Iterator[str]:
    found = [entry for entry in entries(records) if entry.runs]
    flights = sorted({entry.scenario["arrival"]["in_flight"] for entry in found})
    cells = {(entry.curve, entry.scenario["arrival"]["in_flight"]): entry for entry in found}
    yield f"dense, 1 row per request, rows/s to those of direct calls in batches of {DIRECT_ROWS}\n"
    lines = []
    for curve in dict.fromkeys(entry.curve for entry in found):
        row = [cells.get((curve, flight)) for flight in flights]
        most = cells.get((curve, max(flights)))
        rate = most.text("rows_per_s", ",.0f") if most else "-"
        lines.append([curve, *(entry.text("of_direct", ".0%") if entry else "-" for entry in row), rate])
    yield from markdown([["in flight", *map(str, flights), f"rows/s at {max(flights)}"], *lines])
    yield ""
    for rows, rate_of in yardsticks(records, "direct", "rows", "rows_per_s").items():
        yield f"ONNX Runtime called directly, batches of {rows}: {shown(rate_of, ',.0f')} rows/s  "


_LATENCY: Final = (
    ("due/s", "offered_per_s", ",.0f"),
    ("answered/s", "requests_per_s", ",.0f"),
    ("p50 ms", "p50_ms", ".1f"),
    ("p99 ms", "p99_ms", ".1f"),
    ("p99 to a batch's run", "p99_of_service", ".1f"),
    ("refused", "rejected", ",.0f"),
    ("p99 of refusals, ms", "rejected_p99_ms", ".1f"),
)


def _latency(records: Sequence[Record]) -> Iterator[str]:
    opened = [entry for entry in entries(records) if entry.runs and entry.point]
    yield "dense, 1 row per request, requests at random times, at most 256 rows in the queue\n"
    lines = [
        [entry.curve, entry.point, *(entry.text(key, form) for _, key, form in _LATENCY)] for entry in opened
    ]
    yield from markdown([["", "offered", *(title for title, _, _ in _LATENCY)], *lines])


def _large(records: Sequence[Record]) -> Iterator[str]:
    found = [entry for entry in entries(records) if entry.runs]
    copies = yardsticks(records, "copy", "bytes", "call_us")
    rates = yardsticks(records, "copy", "bytes", "mb_per_s")
    calls = yardsticks(records, "direct", "model", "call_us")
    yield f"one image per request, {LARGE_IN_FLIGHT} in flight\n"
    lines = []
    for entry in found:
        size = request_bytes(entry.scenario)
        cost = entry.figure("cpu_us_per_request").median if entry.has("cpu_us_per_request") else 0.0
        worth = f"{cost / copies[size].median:.1f}" if cost else "-"
        figures = [("requests_per_s", ",.0f"), ("mb_per_s", ",.0f"), ("of_copy", ".0%"), ("p50_ms", ".1f")]
        texts = [entry.text(key, form) for key, form in [*figures, ("cpu_us_per_request", ",.0f")]]
        lines.append([entry.curve, f"{size / 1e6:.1f} MB", *texts, worth])
    head = ["", "input", "requests/s", "MB/s", "of memcpy", "p50 ms", "CPU us/request", "memcpys of CPU"]
    yield from markdown([head, *lines])
    yield ""
    sizes = {entry.scenario["model"]["name"]: request_bytes(entry.scenario) for entry in found}
    for name, size in sizes.items():
        copied = f"{shown(copies[size], ',.0f')} us, {shown(rates[size], ',.0f')} MB/s"
        called = f"{shown(calls[name], ',.0f')} us"
        yield f"{size / 1e6:.1f} MB: memcpy {copied}; the model called directly {called}  "
