"""`gateway validate`: everything that is wrong with a configuration file and with what it points at."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from google.protobuf import text_format

from gateway._proto import model_config_pb2
from gateway.commands.failure import CommandFailed
from gateway.commands.serve_config import is_version_name
from gateway.config.schema import load_config
from gateway.config.yaml_file import read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.config.model_settings import NamedModelSettings
    from gateway.config.schema import GatewayConfig
    from gateway.config.yaml_file import Location


def validate(file: Path) -> None:
    """Print a summary of a configuration that could be served.

    Raises:
        ConfigError: the file itself is wrong; every complaint on a line of its own.
        CommandFailed: what it points at is missing or unreadable; likewise.
    """
    config = load_config(file)
    lines = read_yaml(file)
    if complaints := [f"{file}:{lines.line_of(at)}: {text}" for at, text in find_complaints(config)]:
        raise CommandFailed("\n".join(complaints))
    sys.stdout.write(f"{file}: valid; {_summary(config)}\n")


def _summary(config: GatewayConfig) -> str:
    names = [model.name for model in config.models]
    parts = [f"models {', '.join(names)}"] if names else []
    if config.repository is not None:
        parts.append(f"repository {config.repository.path} (mode {config.repository.mode})")
    return "; ".join(parts) or "it names no model: pass some to `gateway serve`"


def find_complaints(config: GatewayConfig) -> Iterator[tuple[Location, str]]:
    """Yield where in the file, and what: about files and directories that the configuration names."""
    yield from _tls_complaints(config)
    if config.repository is not None:
        yield from _repository_complaints(config.repository.path)
    for index, model in enumerate(config.models):
        path = model.path or (config.repository and config.repository.path / model.name)
        at: Location = ("models", index, "path") if model.path else ("models", index, "name")
        if path:
            for text in _model_complaints(model, path):
                yield at, f"model '{model.name}': {text}"


def _tls_complaints(config: GatewayConfig) -> Iterator[tuple[Location, str]]:
    for part in ("http", "grpc"):
        tls = getattr(config.server, part).tls
        for key in tls.model_fields_set if tls else ():
            file = getattr(tls, key)
            if file is not None and not _readable_file(file):
                yield ("server", part, "tls", key), f"{file}: no such readable file"


def _repository_complaints(path: Path) -> Iterator[tuple[Location, str]]:
    at: Location = ("repository", "path")
    if not path.is_dir() or not os.access(path, os.R_OK | os.X_OK):
        yield at, f"{path}: no such readable directory"
        return
    models = sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    if not models:
        yield at, f"{path}: no model in it; expected NAME/1/model.onnx"
    for model in models:
        for text in _directory_complaints(model):
            yield at, f"model '{model.name}': {text}"


def _model_complaints(model: NamedModelSettings, path: Path) -> Iterator[str]:
    if path.is_dir():
        yield from _directory_complaints(path)
        for file in model.labels.values():
            if not _readable_file(path / file):
                yield f"{path / file}: no such readable file of labels"
    elif not path.exists():
        yield f"{path}: no such file or directory"
    elif path.suffix != ".onnx" or not _readable_file(path):
        yield f"{path}: expected a readable .onnx file or a directory of versions"


def _directory_complaints(path: Path) -> Iterator[str]:
    if not os.access(path, os.R_OK | os.X_OK):
        yield f"{path}: cannot be read"
        return
    if not any(is_version_name(child.name) and child.is_dir() for child in path.iterdir()):
        yield f"{path}: no version in it; expected 1/model.onnx"
    declared = path / "config.pbtxt"
    if declared.exists():
        yield from _pbtxt_complaints(declared)


def _pbtxt_complaints(file: Path) -> Iterator[str]:
    """Yield what keeps a config.pbtxt from being read; whether each field is supported is told at loading."""
    try:
        text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())
    except text_format.ParseError as exc:
        yield f"{file}:{exc}"
    except (OSError, UnicodeDecodeError) as exc:
        yield f"{file}: cannot be read: {exc}"


def _readable_file(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)
