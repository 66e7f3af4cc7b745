"""`gateway monitor erase --files-of`: takes a subject's rows out of a gateway's Parquet files."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gateway.commands.failure import CommandFailed, Exit
from gateway.config.schema import load_config
from gateway.prediction_sinks import parquet_store
from gateway.predlog.join_keys import subject_hash

if TYPE_CHECKING:
    from pathlib import Path


def erase_files(subject: str, config: Path) -> None:
    """Rewrite the Parquet files that a gateway's configuration names; print how many rows went.

    Raises:
        CommandFailed: it names no such files, or no secret to know the subject's rows by; they cannot be
            read or written.
        ConfigError: the configuration is wrong.
    """
    settings = load_config(config).prediction_log
    if settings is None or settings.sinks.parquet is None:
        raise CommandFailed(f"{config}: has no prediction_log.sinks.parquet", Exit.USAGE)
    if settings.secret is None:
        raise CommandFailed(f"{config}: without prediction_log.secret no subject is logged", Exit.USAGE)
    store = parquet_store(settings.sinks.parquet)
    from gateway.predlog.sinks.parquet import erase  # noqa: PLC0415 - an extra, that the store asked for

    try:
        gone = erase(store, frozenset({subject_hash(settings.secret.read().encode(), subject.encode())}))
    except OSError as exc:
        raise CommandFailed(f"not all of the files could be rewritten, try again: {exc}") from exc
    sys.stdout.write(f"{gone} records erased\n")
