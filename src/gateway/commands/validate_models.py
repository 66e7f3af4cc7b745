"""What keeps models that a configuration names from being loaded, as far as their settings tell."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gateway import wiring
from gateway.backends.onnxruntime.options import BACKEND, parse_options
from gateway.commands.serve_config import is_version_name
from gateway.core.errors import ConfigError, ModelLoadError
from gateway.core.options import ModelSpec
from gateway.models.pbtxt import CONFIG_FILE, DeclaredModel, declare, parse_text
from gateway.models.repository import EVERY_MODEL
from gateway.wiring_registries import check_settings, placed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.config.schema import GatewayConfig, RepositorySettings
    from gateway.config.yaml_file import Location


def model_complaints(config: GatewayConfig) -> Iterator[tuple[Location, str]]:
    """Yield where in the file, and what: about models, their directories and their settings."""
    if config.repository is not None:
        yield from _repository_complaints(config, config.repository)
    for index, model in enumerate(config.models):
        if model.source is not None:
            yield from _source_complaints(config, index)
            continue
        if model.on_fleet is not None:
            continue
        path = model.path or (config.repository and config.repository.path / model.name)
        at: Location = ("models", index, "path") if model.path else ("models", index, "name")
        if path:
            for text in _path_complaints(path):
                yield at, f"model '{model.name}': {text}"
            yield from _settings_complaints(config, model.name, path, at)


def _repository_complaints(
    config: GatewayConfig, repository: RepositorySettings
) -> Iterator[tuple[Location, str]]:
    path, at = repository.path, ("repository", "path")
    if not path.is_dir() or not os.access(path, os.R_OK | os.X_OK):
        yield at, f"{path}: no such readable directory"
        return
    models = sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    if not models:
        yield at, f"{path}: no model in it; expected NAME/1/model.onnx"
    named = {model.name for model in config.models}
    for model in models:
        if model.name not in named:  # those with an entry of their own are looked at there
            for text in _path_complaints(model):
                yield at, f"model '{model.name}': {text}"
            yield from _settings_complaints(config, model.name, model, at)
    there = {EVERY_MODEL, *named, *(model.name for model in models)}
    if missing := [name for name in repository.load_at_start if name not in there]:
        yield ("repository", "load_at_start"), f"models {missing} are in no repository"


def _source_complaints(config: GatewayConfig, index: int) -> Iterator[tuple[Location, str]]:
    """Yield what is wrong with a source, or its registry's settings, without asking the registry."""
    model = config.models[index]
    try:
        place, settings, _ = placed(config, model)
        check_settings(place, settings)
    except ConfigError as exc:
        yield ("models", index, "source"), str(exc)
        return
    try:
        spec = wiring.source_options(config).adjust(wiring.bare_spec(model.name))
        if model.on_fleet is None:
            parse_options(spec.backend_options)
    except ModelLoadError as exc:
        yield (
            _place_of_options(config, model.name, ("models", index, "source")),
            f"model '{model.name}': {exc}",
        )


def _path_complaints(path: Path) -> Iterator[str]:
    if not path.exists():
        yield f"{path}: no such file or directory"
    elif not path.is_dir():
        if path.suffix != ".onnx" or not readable_file(path):
            yield f"{path}: expected a readable .onnx file or a directory of versions"
    elif not os.access(path, os.R_OK | os.X_OK):
        yield f"{path}: cannot be read"
    elif not any(is_version_name(child.name) and child.is_dir() for child in path.iterdir()):
        yield f"{path}: no version in it; expected 1/model.onnx"


def _settings_complaints(
    config: GatewayConfig, name: str, path: Path, at: Location
) -> Iterator[tuple[Location, str]]:
    """Yield what a load would refuse of config.pbtxt, labels and options, put together as a load does."""
    sources = wiring.source_options(config)
    try:
        # As the sources have it: who names a path may call the model what they like.
        named_by_directory = at[:1] == ("repository",) or at[-1] == "name"
        declared = _declared(name, path, named_by_directory=named_by_directory)
        spec = sources.adjust(declared.spec)
    except ModelLoadError as exc:
        yield at, f"model '{name}': {exc}"
        return
    directory = path if path.is_dir() else path.parent
    for file in {**declared.label_files, **sources.label_files(name)}.values():
        if path.exists() and not readable_file(directory / file):
            yield at, f"model '{name}': {directory / file}: no such readable file of labels"
    if spec.backend != BACKEND:
        yield at, f"model '{name}': unable to find backend '{spec.backend}'"
        return
    try:
        parse_options(spec.backend_options)
    except ModelLoadError as exc:
        yield _place_of_options(config, name, at), f"model '{name}': {exc}"


def _declared(name: str, path: Path, *, named_by_directory: bool) -> DeclaredModel:
    file = path / CONFIG_FILE
    spec = ModelSpec(name=name)
    if not path.is_dir() or not file.exists():
        return DeclaredModel(spec, "model.onnx", {}, ())
    try:
        config = parse_text(file.read_text(encoding="utf-8"))
    except ModelLoadError as exc:
        raise ModelLoadError(f"{file}:{exc.__cause__}") from exc  # as compilers have it: file:line:column
    except (OSError, UnicodeDecodeError) as exc:
        raise ModelLoadError(f"{file}: cannot be read: {exc}") from exc
    return declare(config, spec, name=name if named_by_directory else "", source=str(file))


def _place_of_options(config: GatewayConfig, name: str, at: Location) -> Location:
    for index, model in enumerate(config.models):
        if model.name == name and model.onnxruntime:
            return ("models", index, "onnxruntime")
    return ("defaults", "onnxruntime") if config.defaults.onnxruntime else at


def readable_file(path: Path) -> bool:
    """Whether it is a file and may be read."""
    return path.is_file() and os.access(path, os.R_OK)
