"""`gateway monitor export`: a report on a model, to a file or into a directory that keeps the latest."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from gateway.commands.failure import CommandFailed, Exit
from gateway.commands.monitor_remote import client, said

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMATS: Final = ("html", "json", "parquet")
_TIME: Final = "%Y%m%dT%H%M%SZ"
_DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What the command line says.

    Attributes:
        model: public model name.
        out: a file whose ending says the format, or a directory: reports in it are called MODEL-TIME.FORMAT.
        url: of the monitor's pages.
        format: of a report in a directory.
        keep_days: reports on the model that are older are deleted from the directory; 0: none is.
        query: `range` and `version`; empty ones are left out.
        token: of the monitor; empty: none.
    """

    model: str
    out: Path
    url: str
    format: str = "html"
    keep_days: float = 0.0
    query: Mapping[str, str]
    token: str = ""


def export(options: ExportOptions, now_s: float) -> None:
    """Write a report; then delete those of the directory that are kept no longer.

    Args:
        options: what is wanted.
        now_s: wall clock, seconds since the epoch.

    Raises:
        CommandFailed: there is no such format, model or monitor; a file cannot be written or deleted.
    """
    out = options.out
    if out.is_dir():
        stamp = datetime.fromtimestamp(now_s, UTC).strftime(_TIME)
        out /= f"{quote(options.model, safe='')}-{stamp}.{options.format}"
    elif options.keep_days:
        raise CommandFailed(f"{out}: is no directory, from which old reports could be deleted", Exit.USAGE)
    kind = out.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise CommandFailed(f"{out}: a report is .html, .json or .parquet", Exit.USAGE)
    asked = urlencode({"format": kind, **{name: value for name, value in options.query.items() if value}})
    with client(options.url, options.token) as monitor:
        reply = monitor.request("GET", f"/v1/models/{quote(options.model, safe='')}/report?{asked}")
        if reply.status != 200:
            raise CommandFailed(said(reply.body))
    try:
        out.write_bytes(reply.body)
        if options.keep_days:
            _forget(out.parent, options.model, now_s - options.keep_days * _DAY_S)
    except OSError as exc:
        raise CommandFailed(f"{exc.filename or out}: {exc.strerror}") from exc
    sys.stdout.write(f"{out}: {len(reply.body)} bytes\n")


def _forget(directory: Path, model: str, before_s: float) -> None:
    name = re.compile(rf"{re.escape(quote(model, safe=''))}-([0-9]{{8}}T[0-9]{{6}}Z)\.({'|'.join(FORMATS)})")
    for path in directory.iterdir():
        if (match := name.fullmatch(path.name)) is not None:
            made = datetime.strptime(match[1], _TIME).replace(tzinfo=UTC)
            if made.timestamp() < before_s:
                path.unlink(missing_ok=True)
