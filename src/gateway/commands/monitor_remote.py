"""`gateway monitor labels` and `erase`: asked of a running monitor by its API."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from gateway.commands.client import GatewayClient, parse_address
from gateway.commands.failure import CommandFailed
from gateway.monitor.labels.files import rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

PORT: Final = 8010
POST_LABELS: Final = 5000
"""Labels of one post."""
_FIELDS: Final = {"key": str, "row": int, "at_s": float, "revision": int, "weight": float, "source": str}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsOptions:
    """What the command line says.

    Attributes:
        file: CSV or Parquet with columns `key` and `label`, and, if it has them, `row`, `at_s`, `revision`,
            `weight`, `source`.
        model: public model name.
        url: of the monitor's pages.
        columns: column's name in the file by field, where it is another one.
        token: of the monitor; empty: none.
    """

    file: Path
    model: str
    url: str
    columns: Mapping[str, str]
    token: str = ""


def client(url: str, token: str) -> GatewayClient:
    """Return a client of the monitor."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return GatewayClient(parse_address(url, PORT), headers=headers)


def import_labels(options: LabelsOptions) -> None:
    """Post a file's labels, in parts; print what became of them.

    Raises:
        CommandFailed: the file cannot be read, or the monitor refused a part; what came before it is posted,
            and posting it again changes nothing.
    """
    totals: dict[str, int] = {}
    with client(options.url, options.token) as monitor:
        for part in _parts(_labels(options), POST_LABELS):
            body = json.dumps({"model": options.model, "labels": part}).encode()
            document = _asked(monitor, "POST", "/v1/labels", body)
            for name in ("joined", "waiting", "unchanged", "refused"):
                totals[name] = totals.get(name, 0) + int(document.get(name, 0))
    sys.stdout.write(", ".join(f"{count} {name}" for name, count in totals.items()) + "\n")


def erase(subject: str, url: str, token: str = "") -> None:
    """Delete every record of a subject at the monitor; print how many there were.

    Raises:
        CommandFailed: the monitor could not.
    """
    with client(url, token) as monitor:
        document = _asked(monitor, "DELETE", f"/v1/subjects/{quote(subject, safe='')}", None)
    sys.stdout.write(f"{document['erased']} records erased\n")


def token() -> str:
    """Return the monitor's token from the environment."""
    return os.environ.get("GATEWAY_MONITOR_TOKEN", "")


def _asked(monitor: GatewayClient, method: str, path: str, body: bytes | None) -> dict[str, Any]:
    headers = {"content-type": "application/json"} if body else {}
    reply = monitor.request(method, path, body or b"", headers)
    if reply.status != 200:
        raise CommandFailed(said(reply.body))
    document: dict[str, Any] = reply.json()
    return document


def said(body: bytes) -> str:
    """Return the sentence of a refusal."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return f"the monitor answered {body[:200]!r}"


def _parts(labels: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    for label in labels:
        part.append(label)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _labels(options: LabelsOptions) -> Iterator[dict[str, Any]]:
    column = {name: options.columns.get(name, name) for name in ("label", *_FIELDS)}
    for number, row in enumerate(rows(options.file, frozenset(column.values())), 1):
        if column["key"] not in row or column["label"] not in row:
            raise CommandFailed(
                f"{options.file}: needs the columns {column['key']} and {column['label']}; "
                f"it has {', '.join(map(str, row))}"
            )
        found: dict[str, Any] = {"label": _value(row[column["label"]])}
        for name, kind in _FIELDS.items():
            value = row.get(column[name])
            if value not in {None, ""}:
                try:
                    found[name] = kind(value)
                except (TypeError, ValueError) as exc:
                    raise CommandFailed(f"{options.file}: row {number}: {column[name]}: {exc}") from exc
        yield found


def _value(value: Any) -> Any:
    """Return a label as JSON has it: text that is a number, as CSV has it, is one."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value
