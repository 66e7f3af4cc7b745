"""Makes the spec of a model on disk from config.pbtxt, labels and the operator's settings. Blocking."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.core.errors import ModelLoadError
from gateway.core.options import ModelSpec
from gateway.models.pbtxt import DeclaredModel, declare, parse_json, parse_text
from gateway.registry.files import Unfit, check_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gateway.registry.layout import ModelLocation

CONFIG_FILE: Final = "config.pbtxt"
MAX_TEXT_BYTES: Final = 16 << 20
"""Largest config or label file that is read."""


@dataclass(frozen=True, slots=True)
class Described:
    """How a model is to be served.

    Attributes:
        spec: its settings.
        model_filename: the file to load in a version's directory.
        warnings: what its config declares and the gateway ignores.
        problem: why it cannot be loaded, or empty.
    """

    spec: ModelSpec
    model_filename: str
    warnings: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Describer:
    """Describes models.

    Attributes:
        adjust: the operator's settings, applied over the model's own.
        label_files: model -> output -> label file that the operator named, relative to the model.
    """

    adjust: Callable[[ModelSpec], ModelSpec]
    label_files: Callable[[str], Mapping[str, str]]

    def describe(self, location: ModelLocation, config: str = "") -> Described:
        """Return how to serve the model at `location`; what is wrong becomes its `problem`.

        Args:
            location: the model.
            config: JSON ModelConfig in place of its config.pbtxt, or empty.
        """
        base = ModelSpec(name=location.name)
        try:
            declared = self._declared(location, base, config)
            spec = self.adjust(declared.spec)
            files = {**declared.label_files, **self.label_files(location.name)}
            labels = {output: _labels(location, name) for output, name in files.items()}
        except (ModelLoadError, Unfit) as error:
            return Described(self.adjust(base), location.model_filename("model.onnx"), problem=str(error))
        spec = dataclasses.replace(spec, labels={**spec.labels, **labels})
        return Described(spec, location.model_filename(declared.model_filename), declared.warnings)

    def _declared(self, location: ModelLocation, base: ModelSpec, config: str) -> DeclaredModel:
        name = location.name if location.in_repository else ""
        if config:
            return declare(parse_json(config), base, name=name)
        path = location.directory / CONFIG_FILE
        # A lone model file shares its directory with others: a config there need not be its own.
        if location.single_file or not path.exists():
            return DeclaredModel(base, "model.onnx", {}, ())
        return declare(parse_text(_text(path, location.root)), base, name=name)


def _labels(location: ModelLocation, name: str) -> tuple[str, ...]:
    text = _text(location.directory / name, location.root)
    return tuple(line.strip() for line in text.splitlines())


def _text(path: Path, root: Path) -> str:
    try:
        check_inside(path, root)
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise ModelLoadError(f"file '{path.name}' is larger than {MAX_TEXT_BYTES} bytes")
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ModelLoadError(f"file '{path.name}' cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ModelLoadError(f"file '{path.name}' is not UTF-8 text") from exc
