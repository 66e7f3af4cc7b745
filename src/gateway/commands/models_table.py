"""`gateway models`: what a running gateway serves, as a table: state, signature, memory, rows per second."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from rich import filesize
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gateway.commands.client import Address, GatewayClient, model_path, raise_for_status
from gateway.commands.failure import CommandFailed
from gateway.commands.model_page import fetch_text, printable, version_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Key = tuple[str, str]
_MEMORY_LINE: Final = re.compile(
    r'^gateway_model_memory_bytes\{model="(?P<model>[^"]*)",version="(?P<version>[^"]*)"\} (?P<bytes>\S+)',
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One version.

    Attributes:
        model: name.
        version: number as text; empty when no version is known.
        state: as the repository index has it.
        signature: inputs and outputs in short; empty unless READY.
        memory_bytes: what it holds; None when the metrics could not be read.
        rows_per_s: between two samples; None unless READY.
        reason: why it is in this state, where the index says.
        label: what its registry calls it; empty where that is not known.
        step: where exactly it is, `FETCHING` for example; empty when the administration port did not answer.
        done_bytes: of its files, while they are fetched or verified.
        total_bytes: likewise; 0 while that is not known.
    """

    model: str
    version: str
    state: str
    signature: str
    memory_bytes: int | None
    rows_per_s: float | None
    reason: str
    label: str = ""
    step: str = ""
    done_bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ModelsOptions:
    """What to ask.

    Attributes:
        address: of the gateway's HTTP port.
        metrics: of its metrics port.
        admin: of its administration port.
        interval_s: between the two samples of the rows counted.
        as_json: print JSON instead of a table.
    """

    address: Address
    metrics: Address
    admin: Address
    interval_s: float = 1.0
    as_json: bool = False


def models(options: ModelsOptions) -> None:
    """Print every version that the gateway knows.

    Raises:
        CommandFailed: no gateway, or an error it answered.
    """
    with GatewayClient(options.address) as client:
        index = client.json("POST", "/v2/repository/index")
        signatures = {key: _signature(client, key) for key in map(_key, index) if _is_ready(index, key)}
        before, at_s = rows_counted(client.json("GET", "/v2/models/stats")), time.perf_counter()
        time.sleep(options.interval_s)
        after, then_s = rows_counted(client.json("GET", "/v2/models/stats")), time.perf_counter()
    rates = {key: (after[key] - before.get(key, 0)) / (then_s - at_s) for key in after}
    rows = table_rows(index, signatures, rates, _memory(options.metrics))
    known = _administration(options.admin)
    rows = [replace(row, **known.get((row.model, row.version), {})) for row in rows]
    if options.as_json:
        sys.stdout.write(json.dumps([asdict(row) for row in rows]) + "\n")
    else:
        Console(highlight=False).print(_table(rows), *_reasons(rows), sep="\n")


def _key(entry: Mapping[str, Any]) -> Key:
    return entry["name"], str(entry.get("version", ""))


def _is_ready(index: Sequence[Mapping[str, Any]], key: Key) -> bool:
    return any(_key(entry) == key and entry.get("state") == "READY" for entry in index)


def _signature(client: GatewayClient, key: Key) -> str:
    reply = client.request("GET", model_path(*key))
    # It may have been unloaded since the index was read: then its line has no signature.
    return signature_text(reply.json()) if reply.status == 200 else ""


def signature_text(metadata: Mapping[str, Any]) -> str:
    """Return `pixels FP32[-1,64] -> probabilities FP32[-1,10]`."""
    sides = (", ".join(_tensor_text(t) for t in metadata[key]) for key in ("inputs", "outputs"))
    return " -> ".join(sides)


def _tensor_text(tensor: Mapping[str, Any]) -> str:
    return f"{tensor['name']} {tensor['datatype']}[{','.join(map(str, tensor['shape']))}]"


def rows_counted(statistics: Mapping[str, Any]) -> dict[Key, int]:
    """Return the rows answered well since the start, by model and version."""
    return {_key(entry): int(entry["inference_count"]) for entry in statistics.get("model_stats", ())}


def memory_by_version(exposition: str) -> dict[Key, int]:
    """Read the memory of each version from the text of the metrics page."""
    found = _MEMORY_LINE.finditer(exposition)
    return {(m["model"], m["version"]): int(float(m["bytes"])) for m in found}


def _memory(metrics: Address) -> dict[Key, int] | None:
    """Return memory by version; None when the metrics port, perhaps closed to us, does not answer."""
    try:
        with GatewayClient(metrics, timeout_s=5.0) as client:
            reply = client.request("GET", "/metrics")
        raise_for_status(reply)
        return memory_by_version(reply.body.decode(errors="replace"))
    except CommandFailed:
        return None


def _administration(admin: Address) -> dict[Key, dict[str, Any]]:
    """Return what only the administration port tells of each version; nothing when it is closed to us."""
    try:
        with GatewayClient(admin, timeout_s=5.0) as client:
            page = client.json("GET", "/")
        return {(row["model"], str(row["version"] or "")): _progress(row) for row in page["models"]}
    except (CommandFailed, KeyError, TypeError):
        return {}


def _progress(row: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: row[name] for name in ("label", "done_bytes", "total_bytes")}
    return {**fields, "step": row["state"]}


def table_rows(
    index: Sequence[Mapping[str, Any]],
    signatures: Mapping[Key, str],
    rates: Mapping[Key, float],
    memory: Mapping[Key, int] | None,
) -> list[ModelRow]:
    """Join what was asked into one row for each entry of the index."""
    return [
        ModelRow(
            *key,
            state=entry.get("state", ""),
            signature=signatures.get(key, ""),
            memory_bytes=None if memory is None else memory.get(key, 0),
            rows_per_s=round(rates[key], 1) if key in rates else None,
            reason=entry.get("reason", ""),
        )
        for entry in index
        for key in (_key(entry),)
    ]


def _table(rows: Sequence[ModelRow]) -> Table:
    table = Table("model", "version", "state", "signature", box=None, pad_edge=False)
    table.add_column("memory", justify="right")
    table.add_column("rows/s", justify="right")
    for row in rows:
        memory = "?" if row.memory_bytes is None else filesize.decimal(row.memory_bytes)
        memory = "" if row.memory_bytes == 0 else memory
        rate = "" if row.rows_per_s is None else f"{row.rows_per_s:,.0f}"
        version = version_name(row.version, row.label)
        cells = (row.model, version, _state(row), row.signature, memory, rate)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def _state(row: ModelRow) -> str:
    """Return `READY`, or `FETCHING 52 % (120.0 of 231.0 MB)`."""
    return f"{row.step or row.state} {fetch_text(row.done_bytes, row.total_bytes)}".rstrip()


def _reasons(rows: Sequence[ModelRow]) -> Iterator[Padding]:
    """Give a line for each version that has something to say; in a column they would be a word wide."""
    for row in rows:
        if row.reason:
            name = " ".join(part for part in (row.model, version_name(row.version, row.label)) if part)
            line = Text(printable(f"{name}: {row.step or row.state}: {row.reason}"))
            yield Padding(line, (0, 0, 0, 2), expand=False)
