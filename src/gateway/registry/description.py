"""Makes the spec of a model on disk from config.pbtxt, labels and the operator's settings. Blocking."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.core.errors import ModelLoadError
from gateway.core.options import ModelSpec
from gateway.models.pbtxt import CONFIG_FILE, JSON_CONFIG, DeclaredModel, declare, parse_json, parse_text
from gateway.registry.files import FileSeen, Look, Unfit, check_inside, glance, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gateway.registry.layout import ModelLocation

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
        look: what was seen of the config and label files just before each was read, absent ones included.
    """

    spec: ModelSpec
    model_filename: str
    warnings: tuple[str, ...] = ()
    problem: str = ""
    look: Look = ()

    def is_current(self, location: ModelLocation) -> bool:
        """Whether the files it was made from are still as they were read."""
        return all(glance(location.directory, seen[0]) == seen for seen in self.look)


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
        reader = _Reader(location)
        try:
            declared = _declared(reader, base, config)
            spec = self.adjust(declared.spec)
            files = {**declared.label_files, **self.label_files(location.name)}
            labels = {output: reader.lines(name) for output, name in files.items()}
        except (ModelLoadError, Unfit) as error:
            filename = location.model_filename("model.onnx")
            return Described(self.adjust(base), filename, problem=str(error), look=tuple(reader.seen))
        spec = dataclasses.replace(spec, labels={**spec.labels, **labels})
        filename = location.model_filename(declared.model_filename)
        return Described(spec, filename, declared.warnings, look=tuple(reader.seen))


class _Reader:
    """Reads a model's text files, and notes what each looked like just before."""

    def __init__(self, location: ModelLocation) -> None:
        self.location = location
        self.seen: list[FileSeen] = []

    def config(self) -> str | None:
        """Return the text of config.pbtxt, None when there is none."""
        # A lone model file shares its directory with others: a config there need not be its own.
        if self.location.single_file:
            return None
        path = self._note(CONFIG_FILE)
        # A link that leads nowhere is a fault, not a model without a config.
        if not path.exists() and not path.is_symlink():
            return None
        return _text(path, self.location.root)

    def lines(self, name: str) -> tuple[str, ...]:
        """Return the lines of a label file."""
        text = _text(self._note(name), self.location.root)
        return tuple(line.strip() for line in text.splitlines())

    def _note(self, name: str) -> Path:
        self.seen.append(glance(self.location.directory, name))
        return self.location.directory / name


def _declared(reader: _Reader, base: ModelSpec, config: str) -> DeclaredModel:
    name = base.name if reader.location.in_repository else ""
    if config:
        return declare(parse_json(config), base, name=name, source=JSON_CONFIG)
    text = reader.config()
    if text is None:
        return DeclaredModel(base, "model.onnx", {}, ())
    return declare(parse_text(text), base, name=name)


def _text(path: Path, root: Path) -> str:
    try:
        check_inside(path, root)
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise ModelLoadError(f"file '{path.name}' is larger than {MAX_TEXT_BYTES} bytes")
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ModelLoadError(f"file '{shown(path.name)}' cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ModelLoadError(f"file '{path.name}' is not UTF-8 text") from exc
