"""`gateway monitor trace`: looks for a subject in the bytes of every file of a monitor or a gateway's log."""

from __future__ import annotations

import sqlite3
import sys
import zlib
from contextlib import closing
from typing import TYPE_CHECKING, Final

from gateway.commands.failure import CommandFailed, Exit
from gateway.commands.monitor_erase import log_settings
from gateway.predlog.join_keys import subject_hash
from gateway.predlog.spool.record import HEADER_BYTES, MAGIC, decode_header
from gateway.predlog.wire import Codec, MalformedFrame, decode_frame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEAST_NAME: Final = 4
"""Bytes: a shorter name is found in what is not about anybody, so that only its hash is looked for."""
_SQLITE: Final = b"SQLite format 3\0"


def trace_monitor(subject: str, config: Path) -> None:
    """Look in the files of a monitor's directory; print those that hold the subject.

    Raises:
        CommandFailed: some do, or the configuration has no `subject_key`.
        ConfigError: the configuration is wrong.
    """
    from gateway.config.monitor import load_monitor_config  # noqa: PLC0415 - an extra

    settings = load_monitor_config(config)
    if settings.subject_key is None:
        raise CommandFailed(f"{config}: without subject_key no subject is known", Exit.USAGE)
    _trace(subject, settings.subject_key.read().encode(), [settings.data])


def trace_log(subject: str, config: Path) -> None:
    """Look in the local files that a gateway's configuration names: Parquet files and spools.

    Raises:
        CommandFailed: some hold the subject, or there are no such files or no secret.
        ConfigError: the configuration is wrong.
    """
    settings, secret = log_settings(config)
    sinks = settings.sinks
    found = [sinks.spool.directory] if sinks.spool is not None else []
    if sinks.parquet is not None:
        if sinks.parquet.directory is None:
            raise CommandFailed(
                f"{sinks.parquet.url}: only files of this host can be looked into", Exit.USAGE
            )
        found.append(sinks.parquet.directory)
    _trace(subject, secret, found)


def _trace(subject: str, secret: bytes, directories: list[Path]) -> None:
    forms = forms_of(subject, subject_hash(secret, subject.encode()))
    files = sorted(p for directory in directories for p in directory.rglob("*") if p.is_file())
    try:
        held = [path for path in files if any(form in data for data in contents(path) for form in forms)]
    except OSError as exc:
        raise CommandFailed(f"{exc.filename}: cannot be read: {exc.strerror}") from exc
    for path in held:
        sys.stdout.write(f"{path}\n")
    if held:
        raise CommandFailed(f"the subject is in {len(held)} of {len(files)} files")
    sys.stdout.write(f"the subject is in none of {len(files)} files\n")


def forms_of(subject: str, hashed: int) -> list[bytes]:
    """Return how a subject may be written in a file: the name and its hash, as text, digits or bytes."""
    name = subject.encode()
    forms = [hashed.to_bytes(8, "little"), hashed.to_bytes(8, "big"), b"%d" % hashed, b"%016x" % hashed]
    return [*forms, name, name.hex().encode()] if len(name) >= LEAST_NAME else forms


def contents(path: Path) -> Iterator[bytes]:
    """Give a file's bytes, and what is compressed in them.

    Raises:
        OSError: it cannot be read; one that is gone meanwhile holds nothing.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    yield data
    if path.suffix == ".parquet":
        yield from _unpacked(data)
    elif path.suffix == ".seg":
        yield from _inflated(data)
    elif data.startswith(_SQLITE):
        yield from _stored(path)


def _unpacked(data: bytes) -> Iterator[bytes]:
    try:
        from gateway.predlog.sinks.parquet_table import unpacked  # noqa: PLC0415 - an extra
    except ImportError as exc:
        raise CommandFailed(f"Parquet files need pip install 'model-gateway[parquet]': {exc}") from exc
    yield unpacked(data)


def _inflated(data: bytes) -> Iterator[bytes]:
    """Give the payloads of a segment's frames that were deflated."""
    at = data.find(MAGIC)
    while at >= 0:
        header = decode_header(data[at : at + HEADER_BYTES])
        if header is None:
            at = data.find(MAGIC, at + 1)
            continue
        names = header.producer_bytes + header.model_bytes
        body = data[at + HEADER_BYTES + names : at + header.record_bytes]
        at = data.find(MAGIC, at + header.record_bytes)
        try:
            frame = decode_frame(body)
            if frame.codec == Codec.DEFLATE:
                yield zlib.decompress(frame.payload)
        except (MalformedFrame, zlib.error):
            continue


def _stored(path: Path) -> Iterator[bytes]:
    """Give a database's values: in its file they may run over the ends of pages, or be compressed."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for row in (row for (name,) in names for row in database.execute(f"SELECT * FROM {name}")):  # noqa: S608 - its own names
                for value in row:
                    data = value if isinstance(value, bytes) else str(value).encode()
                    yield data
                    try:
                        yield zlib.decompress(data)
                    except zlib.error:
                        continue
    except sqlite3.Error:
        return
