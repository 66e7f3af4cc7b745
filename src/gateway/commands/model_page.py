"""Draws everything that administration knows of one model: a page for a terminal of any width."""

from __future__ import annotations

import datetime as dt
import json
import unicodedata
from typing import TYPE_CHECKING, Any, Final

from rich import filesize
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gateway.models.lifecycle import STARTING
from gateway.models.steps import STEP_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.console import RenderableType

    Page = Mapping[str, Any]
    Version = Mapping[str, Any]

_STEP_WORDS: Final = {"NEW": "wait", **{state.value: name for state, name in STEP_NAMES.items()}}
_ON_THE_WAY: Final = frozenset(state.value for state in STARTING)
_COLOURS: Final = {"READY": "green", "FAILED": "red", "UNLOADED": "dim"}
_ENDPOINT_COLOURS: Final = {"healthy": "green", "ejected": "red", "open": "red"}
_STATUS_COLOURS: Final = {"stale": "yellow", "missing": "yellow", "error": "red"}
_BAR_CELLS: Final = 24
_CARD_LINES: Final = 20
_VALUE_CHARACTERS: Final = 600
_DIGEST_CHARACTERS: Final = 12
_FIRST_KEYS: Final = ("description", "run_id", "experiment", "model_id", "source", "creator", "created_s")
_MODEL_CARD: Final = "model_card"


def model_page(page: Page, chosen: str = "") -> RenderableType:
    """Return the page.

    Args:
        page: what `GET /models/NAME` of the administration port answered.
        chosen: number or label of the version whose details are drawn; empty: the one that answers requests
            which name none, else the highest.

    Raises:
        LookupError: there is no version `chosen`.
    """
    versions: Sequence[Version] = page["versions"]
    parts: list[RenderableType] = [_headline(page)]
    if page["registry"] is not None:
        parts += [Text(), _standing(page["registry"], page["now"])]
    if page.get("fleet") is not None:  # of a gateway that knows fleets, and a model on one
        parts += [Text(), *_fleet(page["fleet"])]
    if versions:
        parts += [Text(), *_versions(versions, page["now"])]
        detailed = _detailed(page, chosen)
        for version in versions:
            if version is detailed or version["state"] in _ON_THE_WAY:
                parts += _steps(version)
        parts += _details(detailed)
    elif page["reason"] and page["registry"] is None:
        parts += [Text(), _plain(page["reason"])]
    return Group(*parts)


def version_name(number: object, label: str) -> str:
    """Return `3`, or `3 (1.4.2)` where the registry calls it otherwise."""
    return f"{number} ({label})" if label and label != str(number) else str(number)


def fetch_text(done_bytes: int, total_bytes: int) -> str:
    """Return `52 % (120.0 of 231.0 MB)`, `(120.0 MB)` without a total, or nothing before the first byte."""
    if not total_bytes:
        return f"({filesize.decimal(done_bytes)})" if done_bytes else ""
    done, total = filesize.decimal(done_bytes), filesize.decimal(total_bytes)
    if done.split()[-1] == total.split()[-1]:
        done = done.split()[0]
    return f"{100 * min(done_bytes, total_bytes) // total_bytes} % ({done} of {total})"


def printable(text: str) -> str:
    """Return text that a registry gave without what could steer the terminal."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else "�" for c in text)


def _plain(text: object, style: str = "") -> Text:
    return Text(printable(str(text)), style=style)


def _headline(page: Page) -> Text:
    line = Text.assemble((printable(page["model"]), "bold"), "  ")
    if not page["ready"]:
        return line.append("NOT READY", "red")
    line.append("READY", "green")
    number = page["default_version"]
    if number is None:
        return line.append("  nothing of it is loaded now")
    default = next(v for v in page["versions"] if v["version"] == number)
    return line.append(f"  version {printable(version_name(number, default['label']))} answers")


def _standing(registry: Page, now_s: float) -> Table:
    grid = _grid()
    grid.add_row("source", _plain(f"{registry['source']}, registry {registry['registry']}"))
    grid.add_row("", _status(registry, now_s))
    aliases = ", ".join(f"{alias} = {label}" for alias, label in sorted(registry["aliases"].items()))
    if aliases:
        grid.add_row("aliases", _plain(aliases))
    return grid


def _status(registry: Page, now_s: float) -> Text:
    status, next_s = registry["status"], registry["next_poll_s"]
    then = "" if next_s is None else f"; next look in {_age(next_s)}"
    if status == "ok":
        return Text(f"up to date {_age(now_s - registry['last_ok'])} ago{then}")
    since_s = registry["since"] if registry["stale_since"] is None else registry["stale_since"]
    text = Text(f"{status.upper()} for {_age(now_s - since_s)}", _STATUS_COLOURS.get(status, ""))
    return text.append(printable(f": {registry['message']}{then}"), "none")


def _versions(versions: Iterable[Version], now_s: float) -> Iterator[RenderableType]:
    table = Table("version", "aliases", "state", "files", box=None, pad_edge=False, header_style="bold")
    table.add_column("memory", justify="right")
    table.add_column("wanted by", overflow="fold")
    for version in versions:
        memory = filesize.decimal(version["memory_bytes"]) if version["memory_bytes"] else ""
        table.add_row(
            _plain(version_name(version["version"], version["label"])),
            _plain(", ".join(version["aliases"])),
            _state(version, now_s),
            version["content_digest"][:_DIGEST_CHARACTERS],
            memory,
            _plain(_claims(version)),
        )
    yield table
    for version in versions:
        if version["reason"]:
            name = version_name(version["version"], version["label"])
            line = _plain(f"{name}: ", _COLOURS.get(version["state"], ""))
            yield _indented(line.append(printable(version["reason"]), "none"))


def _fleet(fleet: Page) -> Iterator[RenderableType]:
    """Give the endpoints of the fleet that a model runs on, with what each has of it."""
    yield _plain(f"on fleet {fleet['fleet']}, as {fleet['model']}", "bold")
    table = Table("endpoint", "state", "versions", "requests", box=None, pad_edge=False, header_style="bold")
    for endpoint in fleet["endpoints"]:
        state = _plain(endpoint["state"], _ENDPOINT_COLOURS.get(endpoint["state"], "yellow"))
        if endpoint["reason"]:
            state.append(printable(f": {endpoint['reason']}"), "none")
        table.add_row(
            _plain(endpoint["address"]),
            state,
            ", ".join(map(str, endpoint["versions"])) or "none",
            f"{endpoint['inflight']} of {endpoint['limit']}",
        )
    yield _indented(table)


def _claims(version: Version) -> str:
    """Return who wants a version; that of its registry by the registry's name alone, whose place is above."""
    origin = version["origin"]
    registry = origin["registry"] if origin is not None else ""
    return ", ".join(
        registry if registry and claim.startswith(f"{registry} (") else claim for claim in version["claims"]
    )


def _state(version: Version, now_s: float) -> Text:
    state = version["state"]
    text = Text(state, _COLOURS.get(state, "yellow"))
    if fetched := fetch_text(version["done_bytes"], version["total_bytes"]):
        return text.append(f" {fetched}", "none")
    return text.append(f" {_age(now_s - version['since'])}", "none") if version["since"] else text


def _detailed(page: Page, chosen: str) -> Version:
    versions: Sequence[Version] = page["versions"]
    if not chosen:
        number = page["default_version"] or max(v["version"] for v in versions)
        return next(v for v in versions if v["version"] == number)
    for version in versions:
        if chosen in {str(version["version"]), version["label"]}:
            return version
    names = ", ".join(version_name(v["version"], v["label"]) for v in versions)
    raise LookupError(f"model '{page['model']}' has no version '{chosen}'; there are: {names}")


def _steps(version: Version) -> Iterator[RenderableType]:
    """Give the steps of a version with bars in proportion."""
    steps = version["steps"]
    if not steps:
        return
    total_s = sum(step["seconds"] for step in steps)
    longest_s = max(step["seconds"] for step in steps)
    ends = {"READY": "ready after", "FAILED": "failed after"}
    end = "so far" if version["state"] in _ON_THE_WAY else ends.get(version["state"], "took")
    yield from _heading(
        f"Version {version_name(version['version'], version['label'])}, {end} {_duration(total_s)}"
    )
    grid = _grid()
    width = max(len(_duration(step["seconds"])) for step in steps)
    for step in steps:
        cells = round(_BAR_CELLS * step["seconds"] / longest_s) if longest_s else 0
        word = _STEP_WORDS.get(step["state"], step["state"].lower())
        line = Text(f"{_duration(step['seconds']):>{width}}", no_wrap=True)
        grid.add_row(_plain(word), line.append(f"  {'━' * cells}", "cyan") if cells else line)
    yield _indented(grid)


def _details(version: Version) -> Iterator[RenderableType]:
    name = version_name(version["version"], version["label"])
    signature = version["signature"]
    if signature is not None:
        yield from _heading(f"Signature of version {name}")
        yield _indented(_tensors(signature))
        yield _indented(_plain(_placement(version)))
    if version["origin"] is not None:
        yield from _heading(f"Origin of version {name}")
        yield _indented(_origin(version))
        yield from _card(version["lineage"].get(_MODEL_CARD))


def _tensors(signature: Page) -> Table:
    grid = _grid()
    grid.add_column()
    for kind in ("inputs", "outputs"):
        for tensor in signature[kind]:
            shape = f"[{','.join(map(str, tensor['shape']))}]"
            optional = ", optional" if tensor.get("optional") else ""
            grid.add_row(
                kind.removesuffix("s"), _plain(tensor["name"]), f"{tensor['datatype']}{shape}{optional}"
            )
    return grid


def _placement(version: Version) -> str:
    devices = ", ".join(
        f"{d['device']} with {d['instances']} instance{'s' * (d['instances'] > 1)}"
        for d in version["devices"]
    )
    kind = "; answers with streams" if version["signature"]["decoupled"] else ""
    return f"{version['platform']} on {devices or 'no device'}{kind}; requests under way: {version['leases']}"


def _origin(version: Version) -> Table:
    grid = _grid()
    grid.add_row("files", version["content_digest"] or "not here yet")
    signing = version["signing"]
    if signing is not None:
        who = f"by {signing['by']}: " if signing["signed"] else "NO: "
        grid.add_row("signed", _plain(f"{who}{signing['detail']}", "" if signing["signed"] else "yellow"))
    lineage = version["lineage"]
    others = [key for key in lineage if key not in {*_FIRST_KEYS, _MODEL_CARD}]
    for key in (*(key for key in _FIRST_KEYS if key in lineage), *others):
        grid.add_row(_plain(key.removesuffix("_s").replace("_", " ")), _plain(_value(key, lineage[key])))
    return grid


def _value(key: str, value: object) -> str:
    """Return a piece of lineage as text; it may be any JSON."""
    if key == "created_s" and isinstance(value, (int, float)):
        text = _date(value)
    elif isinstance(value, dict):
        text = ", ".join(f"{name}={_scalar(item)}" for name, item in value.items())
    elif isinstance(value, list):
        text = "; ".join(_value("", item) for item in value)
    else:
        text = _scalar(value)
    return text if len(text) <= _VALUE_CHARACTERS else f"{text[:_VALUE_CHARACTERS]} ... (--json has it all)"


def _scalar(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _card(card: object) -> Iterator[RenderableType]:
    if not isinstance(card, str) or not card.strip():
        return
    lines = card.strip().splitlines()
    yield from _heading("Model card")
    yield _indented(_plain("\n".join(lines[:_CARD_LINES])))
    if len(lines) > _CARD_LINES:
        yield Padding(
            Text(f"... {len(lines) - _CARD_LINES} more lines (--json has them all)", "dim"), (0, 0, 0, 2)
        )


def _indented(part: RenderableType) -> Padding:
    return Padding(part, (0, 0, 0, 2), expand=False)


def _heading(text: str) -> Iterator[Text]:
    yield Text()
    yield _plain(text, "bold")


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column()
    return grid


def _age(seconds: float) -> str:
    """Return a time as `_duration` does, in whole seconds at least."""
    return _duration(seconds) if seconds >= 10 else f"{max(0.0, seconds):.0f} s"


def _duration(seconds: float) -> str:
    """Return a time in one unit that people can compare: `12 ms`, `3.1 s`, `20 min`, `5 h`, `3 d`."""
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    for unit_s, name in ((60.0, "min"), (3600.0, "h")):
        if seconds < unit_s * 120:
            return f"{seconds / unit_s:.0f} {name}"
    return f"{seconds / 86_400:.0f} d"


def _date(wall_s: float) -> str:
    try:
        return dt.datetime.fromtimestamp(wall_s, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return str(wall_s)
