"""Where models and their versions lie: Triton's directory layout, and single model files. Blocking."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.core.errors import ConfigError
from gateway.registry.files import VersionFiles, check_inside, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

_VERSION: Final = re.compile(r"[1-9][0-9]{0,18}")
MODEL_SUFFIX: Final = ".onnx"
_KNOWN_FOLDERS: Final = frozenset({"warmup"})


@dataclass(frozen=True, slots=True)
class ModelLocation:
    """One model on disk.

    Attributes:
        name: public name.
        root: nothing outside may be reached; resolved.
        path: its directory, or its one file.
        in_repository: named by its directory, so that its config must have the same name.
    """

    name: str
    root: Path
    path: Path
    in_repository: bool

    @property
    def single_file(self) -> bool:
        """Whether the model is one file, version 1."""
        return self.path.suffix == MODEL_SUFFIX

    @property
    def directory(self) -> Path:
        """Where config.pbtxt and label files lie."""
        return self.path.parent if self.single_file else self.path

    def model_filename(self, declared: str) -> str:
        """Return the name of the file to load in a version's directory."""
        return self.path.name if self.single_file else declared

    def versions(self) -> tuple[dict[int, VersionFiles], list[str]]:
        """Return the versions there are, and why other directories are none.

        Raises:
            OSError: the directory cannot be read.
            Unfit: it is a link that leads out.
        """
        if self.single_file:
            return {1: VersionFiles(self.root, self.path.parent, self.path.stem)}, []
        check_inside(self.path, self.root)
        found: dict[int, VersionFiles] = {}
        ignored: list[str] = []
        for entry in sorted(self.path.iterdir()):
            if not entry.is_dir() or entry.name.startswith("."):
                continue
            if _VERSION.fullmatch(entry.name):
                found[int(entry.name)] = VersionFiles(self.root, entry)
            elif entry.name not in _KNOWN_FOLDERS:
                ignored.append(
                    f"directory '{shown(entry.name)}' of model '{self.name}' is no version: a version is a "
                    "positive integer without leading zeros"
                )
        return found, ignored


@dataclass(frozen=True, slots=True)
class Located:
    """The models that a source has.

    Attributes:
        models: where they lie, by name.
        ignored: why other directories of the repository are no models.
    """

    models: Mapping[str, ModelLocation]
    ignored: tuple[str, ...]


def locate(root: Path | None, models: Mapping[str, Path], exclude: Collection[str] = ()) -> Located:
    """Return the models of a repository and those named one by one, which go before.

    Args:
        root: the repository, or None.
        models: name -> path of those named one by one.
        exclude: names that are not the repository's to serve.

    Raises:
        ConfigError: a path does not exist or cannot be read.
    """
    found: dict[str, ModelLocation] = {}
    ignored: list[str] = []
    if root is not None:
        resolved = _resolved(root, f"model repository '{root}'")
        for folder in _folders(resolved, f"model repository '{root}'"):
            if shown(folder.name) != folder.name:
                ignored.append(f"directory '{shown(folder.name)}' is no model: its name is not UTF-8")
            elif folder.name in exclude:
                ignored.append(
                    f"directory '{folder.name}' is not served: the configuration names another path"
                )
            else:
                found[folder.name] = ModelLocation(folder.name, resolved, folder, in_repository=True)
    return Located(found | {name: _named(name, path) for name, path in models.items()}, tuple(ignored))


def _folders(root: Path, title: str) -> list[Path]:
    try:
        return [p for p in sorted(root.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    except OSError as exc:
        raise ConfigError(f"{title} cannot be read: {exc.strerror}") from exc


def _resolved(path: Path, title: str) -> Path:
    try:
        return path.resolve(strict=True)
    except OSError as exc:
        raise ConfigError(f"{title} cannot be read: {exc.strerror}") from exc
    except RuntimeError as exc:  # how Python before 3.13 tells of a circle
        raise ConfigError(f"{title} cannot be read: its links lead in a circle") from exc


def _named(name: str, path: Path) -> ModelLocation:
    # The path was named by the operator: it may itself be a link, what lies below it may not lead out.
    resolved = _resolved(path, f"model '{name}': '{path}'")
    if resolved.is_dir():
        return ModelLocation(name, resolved, resolved, in_repository=False)
    if resolved.suffix != MODEL_SUFFIX:
        raise ConfigError(f"model '{name}': '{path}' is neither a directory nor an {MODEL_SUFFIX} file")
    return ModelLocation(name, resolved.parent, resolved, in_repository=False)
