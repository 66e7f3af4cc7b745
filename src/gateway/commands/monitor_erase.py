"""`gateway monitor erase --files-of`: takes a subject's rows out of a gateway's Parquet files and spools."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Final

from gateway.commands.failure import CommandFailed, Exit
from gateway.config.schema import load_config
from gateway.prediction_sinks import parquet_store
from gateway.predlog.join_keys import subject_hash
from gateway.predlog.spool.disk import LocalSpoolDisk
from gateway.predlog.spool.erasures import ask
from gateway.predlog.spool.options import SpoolOptions
from gateway.predlog.spool.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.config.prediction_log import PredictionLogSettings
    from gateway.config.prediction_sinks import ParquetSinkSettings, SinkSettings

SINKS: Final = ("stream", "parquet", "nats", "cloudevents")
"""Each has a folder of its name in the spool's."""


def erase_files(subject: str, config: Path) -> None:
    """Rewrite the Parquet files and spools that a gateway's configuration names; print how many rows went.

    Raises:
        CommandFailed: it names no such files, or no secret to know the subject's rows by; they cannot be
            read or written.
        ConfigError: the configuration is wrong.
    """
    settings, secret = log_settings(config)
    hashed = frozenset({subject_hash(secret, subject.encode())})
    if settings.sinks.spool is not None:
        _check_owner(settings.sinks.spool.directory)
    try:
        for directory in spools(settings.sinks):
            ask(directory, hashed, time.time_ns())
        gone = _erase_parquet(settings.sinks.parquet, hashed)
        lines = [_rewritten(directory) for directory in spools(settings.sinks)]
    except OSError as exc:
        raise CommandFailed(f"not all of the files could be rewritten, try again: {exc}") from exc
    sys.stdout.write(f"{gone} records erased\n" + "".join(lines))


def log_settings(config: Path) -> tuple[PredictionLogSettings, bytes]:
    """Return the log's section of a gateway's configuration, which names files, and its secret.

    Raises:
        CommandFailed: there are none.
        ConfigError: the configuration is wrong.
    """
    settings = load_config(config).prediction_log
    if settings is None or (settings.sinks.parquet is None and settings.sinks.spool is None):
        raise CommandFailed(f"{config}: prediction_log.sinks has neither parquet nor spool", Exit.USAGE)
    if settings.secret is None:
        raise CommandFailed(f"{config}: without prediction_log.secret no subject is logged", Exit.USAGE)
    return settings, settings.secret.read().encode()


def spools(settings: SinkSettings) -> Iterator[Path]:
    """Give the folders of the spools of a configuration's sinks."""
    if settings.spool is not None:
        for name in SINKS:
            if getattr(settings, name) is not None:
                yield settings.spool.directory / name


def _check_owner(directory: Path) -> None:
    """Refuse to leave files in a gateway's spool that it could not read."""
    if directory.exists() and directory.stat().st_uid != os.geteuid():
        owner = directory.stat().st_uid
        raise CommandFailed(f"{directory} is user {owner}'s: run this as the user that the gateway runs as")


def _erase_parquet(settings: ParquetSinkSettings | None, subject_hashes: frozenset[int]) -> int:
    if settings is None:
        return 0
    store = parquet_store(settings)
    from gateway.predlog.sinks.parquet_erasing import erase  # noqa: PLC0415 - an extra, that the store asked for

    return erase(store, subject_hashes, time.time_ns())


def _rewritten(directory: Path) -> str:
    spool = Spool(directory, SpoolOptions(), LocalSpoolDisk())
    try:
        spool.open()
    except BlockingIOError:
        return f"{directory}: the gateway that runs rewrites it within a minute\n"
    spool.close()
    return f"{directory}: rewritten\n"
