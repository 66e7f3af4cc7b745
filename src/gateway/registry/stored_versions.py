"""Reads a model's versions, aliases and faults off the list of its files. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gateway.core.registry import RegistryError, RegistryFile
from gateway.registry.files import UNFINISHED_SUFFIXES
from gateway.registry.labels import WHAT_IS_A_LABEL, number_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from gateway.core.registry import RegistryVersion

ALIASES: Final = "aliases"
"""Directory of a model; each file in it is an alias, and holds the label it names."""
UPLOAD_MARKERS: Final = (".incomplete", "_UPLOADING")
"""A version with one of these files is not yet whole."""
MAX_PATH_BYTES: Final = 1024
MAX_NAME_BYTES: Final = 255
"""Longest name that common file systems can hold."""

_MODEL_SUFFIX: Final = ".onnx"
_MLMODEL: Final = "MLmodel"
_NO_VERSIONS: Final = frozenset({ALIASES, "warmup", "configs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One file of a model as the store lists it.

    Attributes:
        path: relative to the model, `/` between its parts.
        size: bytes.
        etag: changes with the content.
        modified_s: seconds since the epoch; 0 when not known.
    """

    path: str
    size: int
    etag: str
    modified_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVersion:
    """The files of one version that can be served.

    Attributes:
        label: its directory's name.
        number: as `number_of` gives it.
        revision: a digest of paths, sizes and etags.
        created_s: when the last of its files was written.
        objects: its files by path relative to the version; names that begin with a dot are left out.
    """

    label: str
    number: int
    revision: str
    created_s: float
    objects: Mapping[str, StoredObject]

    def files(self) -> list[RegistryFile]:
        """Return its files as a registry lists them."""
        return [
            RegistryFile(path=path, size=seen.size, etag=seen.etag) for path, seen in self.objects.items()
        ]


@dataclass(slots=True)
class StoredModel:
    """What a model's files say.

    Attributes:
        versions: those that can be served, by label.
        moving: label -> why that version is not whole yet.
        unusable: label -> why that version can never be served as it is.
        aliases: alias -> the file that holds its label.
        beside: the files beside the versions, config.pbtxt and labels of outputs.
    """

    versions: dict[str, StoredVersion] = field(default_factory=dict)
    moving: dict[str, str] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, StoredObject] = field(default_factory=dict)
    beside: dict[str, StoredObject] = field(default_factory=dict)


def arrange(objects: Sequence[StoredObject], completion_marker: str = "") -> StoredModel:
    """Return what a model's files say.

    Args:
        objects: every file below the model.
        completion_marker: the name of a file that a version must have to be whole; empty for none.
    """
    model = StoredModel()
    by_label: dict[str, dict[str, StoredObject]] = {}
    for seen in objects:
        top, _, rest = seen.path.partition("/")
        if not rest:
            model.beside[top] = seen
        elif top == ALIASES:
            if "/" not in rest and not rest.startswith(".") and fault_of_path(rest) is None:
                model.aliases[rest] = seen
        elif top not in _NO_VERSIONS and not top.startswith("."):
            by_label.setdefault(top, {})[rest] = seen
    for label, files in by_label.items():
        _judge(model, label, files, completion_marker)
    _refuse_equal_numbers(model)
    return model


def _judge(model: StoredModel, label: str, files: Mapping[str, StoredObject], marker: str) -> None:
    """Add one version, or why it is none."""
    number = number_of(label)
    kept = {path: seen for path, seen in files.items() if not _hidden(path)}
    for path in _parents(kept) & kept.keys():
        if kept[path].size == 0:  # an object that stands for a folder
            del kept[path]
    if number is None:
        model.unusable[printable(label)] = f"'{printable(label)}' is no version: {WHAT_IS_A_LABEL}"
    elif (moving := _incomplete(files, kept, marker)) is not None:
        model.moving[label] = moving
    elif (fault := _fault(kept)) is not None:
        model.unusable[label] = fault
    else:
        model.versions[label] = StoredVersion(
            label=label,
            number=number,
            revision=_revision(kept),
            created_s=max(seen.modified_s for seen in kept.values()),
            objects=kept,
        )


def _revision(kept: Mapping[str, StoredObject]) -> str:
    whole = hashlib.sha256()
    for path in sorted(kept):
        seen = kept[path]
        whole.update(b"%b\0%d\0%b\0" % (path.encode(), seen.size, seen.etag.encode()))
    return whole.hexdigest()


def _incomplete(
    files: Mapping[str, StoredObject], kept: Mapping[str, StoredObject], marker: str
) -> str | None:
    for name in UPLOAD_MARKERS:
        if name in files:
            return f"its file '{name}' says that it is still being uploaded"
    if marker and marker not in files:
        return f"it lacks the file '{printable(marker)}' that says that it is whole"
    unfinished = sorted(path for path in kept if path.endswith(UNFINISHED_SUFFIXES))
    return f"'{printable(unfinished[0])}' is still being written" if unfinished else None


def _fault(kept: Mapping[str, StoredObject]) -> str | None:
    for path in kept:
        if (fault := fault_of_path(path)) is not None:
            return fault
    clashes = sorted(_parents(kept) & kept.keys())
    if clashes:
        return f"'{printable(clashes[0])}' is a file and a directory"
    if not any(path.endswith(_MODEL_SUFFIX) or path == _MLMODEL for path in kept):
        return f"it has no model file: none of its {len(kept)} files is named *{_MODEL_SUFFIX}"
    return None


def _refuse_equal_numbers(model: StoredModel) -> None:
    """Of labels with one number keep the plainest, `7` before `v7` and `1.4` before `1.4.0`."""
    by_number: dict[int, str] = {}
    for label in sorted(model.versions, key=lambda label: (label.startswith("v"), len(label), label)):
        number = model.versions[label].number
        first = by_number.setdefault(number, label)
        if first != label:
            model.unusable[label] = f"it is the same version as '{first}', which is there too"
            del model.versions[label]


def _hidden(path: str) -> bool:
    return any(part.startswith(".") and part not in {".", ".."} for part in path.split("/"))


def _parents(paths: Iterable[str]) -> set[str]:
    found = set()
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return found


def fault_of_path(path: str) -> str | None:
    """Return why a path cannot be one of a file below a directory of ours, None when it can."""
    parts = path.split("/")
    if not path.isprintable() or "\\" in path:
        return f"'{printable(path)}' has characters that a file's name must not have"
    if any(part in {"", ".", ".."} for part in parts):
        return f"'{printable(path)}' leads elsewhere"
    encoded = path.encode()
    if len(encoded) > MAX_PATH_BYTES or any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        return f"'{printable(path)}' is too long"
    return None


def printable(text: str, limit: int = 100) -> str:
    """Return text that can be shown on one line: what cannot is escaped, what is too long is cut."""
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: limit + 1])
    return plain if len(plain) <= limit else plain[: limit - 3] + "..."


def same_version(label: str, labels: Collection[str]) -> str:
    """Return which of `labels` stands for the same version as `label`; `label` itself when none does."""
    number = number_of(label)
    if label in labels or number is None:
        return label
    return next((other for other in sorted(labels) if number_of(other) == number), label)


def check_model_name(name: str) -> None:
    """Pass when `name` can be a model's.

    Raises:
        RegistryError: step `resolve`.
    """
    if (fault := fault_of_path(name)) is not None:
        raise RegistryError("resolve", f"no model can have this name: {fault}", may_pass=False)


def version_files(
    version: RegistryVersion, objects: Sequence[StoredObject], marker: str, place: str
) -> list[RegistryFile]:
    """Return the files of a version from a listing of its directory alone.

    Raises:
        RegistryError: step `fetch`; it is gone, or no longer the one of its revision.
    """
    title = f"version '{printable(version.label)}' of model '{printable(version.model)}'"
    listed = [dataclasses.replace(seen, path=f"{version.label}/{seen.path}") for seen in objects]
    model = arrange(listed, marker)
    found = model.versions.get(version.label)
    if found is None:
        why = {**model.moving, **model.unusable}.get(version.label, f"it is not at {place} any more")
        raise RegistryError("fetch", f"{title} cannot be read: {why}", may_pass=True)
    if found.revision != version.revision:
        raise RegistryError(
            "fetch", f"{title} is another one at {place} by now; the next look finds it", may_pass=True
        )
    return found.files()
