"""Reads the `source:` of a model's entry: which registry, which model, which of its versions. Pure."""

from __future__ import annotations

import difflib
import enum
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from gateway.core.errors import ConfigError
from gateway.registry.labels import is_prefix, number_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MLFLOW: Final = "mlflow"
FILE: Final = "file"
STORES: Final = ("s3", "gs", "az", "https", "http")
"""Schemes of object stores, whose URL holds the registry and the model."""
_SCHEMES: Final = (MLFLOW, FILE, *STORES)
_OTHER_NAMES: Final[Mapping[str, str]] = {
    "s3a": "s3",
    "s3n": "s3",
    "gcs": "gs",
    "azure": "az",
    "abfs": "az",
    "abfss": "az",
    "adl": "az",
    "models": MLFLOW,
    "runs": MLFLOW,
}
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):(.*)", re.DOTALL)
_ALIAS: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,254}")
_MLFLOW_NAME: Final = re.compile(r"[^/:@\x00-\x1f\x7f]{1,512}")
_STORED_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\- ]{0,254}")
_FORMS: Final = "mlflow://NAME@ALIAS, s3://bucket/prefix/NAME@SELECTOR or /directory/NAME@SELECTOR"
_SELECTORS: Final = (
    "an alias (champion), a version (7, 1.4.2), the highest of a line (1.x, 1.4.x), 'latest' or 'all'"
)


class SelectorKind(enum.Enum):
    """How a reference chooses among the versions of its model."""

    POLICY = "policy"
    """By the model's `versions:` policy: the reference names none."""
    ALIAS = "alias"
    """What an alias of the registry names now."""
    LABEL = "label"
    """One version by its own id."""
    PREFIX = "prefix"
    """The highest version whose label begins so."""
    LATEST = "latest"
    """The highest version."""
    ALL = "all"
    """Every version."""


@dataclass(frozen=True, slots=True)
class Selector:
    """Which versions of a model a reference means.

    Attributes:
        kind: how it chooses.
        value: the alias, the label, or the prefix with its `.x`; empty for the other kinds.
    """

    kind: SelectorKind = SelectorKind.POLICY
    value: str = ""

    def __str__(self) -> str:
        """Return it as it stands after the `@`; empty without one."""
        return {SelectorKind.LATEST: "latest", SelectorKind.ALL: "all"}.get(self.kind, self.value)


@dataclass(frozen=True, slots=True)
class ModelReference:
    """One model of a registry, and which of its versions.

    Attributes:
        scheme: `mlflow`, `file` or one of STORES.
        store: the URL of the registry that holds the model, `s3://bucket/prefix`, `file:///directory`; empty
            for MLflow, whose address is the registry's own setting.
        model: the model's name in the registry.
        selector: which versions.
    """

    scheme: str
    store: str
    model: str
    selector: Selector = Selector()

    def __str__(self) -> str:
        """Return the canonical text: equal for references that mean the same."""
        name = quote(self.model, safe=" ") if self.scheme in {MLFLOW, FILE} else self.model
        where = "mlflow://" if self.scheme == MLFLOW else f"{self.store.removesuffix('/')}/"
        return f"{where}{name}@{self.selector}" if str(self.selector) else f"{where}{name}"


def parse_reference(text: str, base: Path) -> ModelReference:
    """Return what a `source:` means.

    Args:
        text: `mlflow://NAME[@SELECTOR]`, `mlflow://NAME/VERSION`, `s3://bucket[/prefix]/NAME[@SELECTOR]`
            (likewise `gs`, `az`, `https`, `http`), `file:///directory/NAME[@SELECTOR]`, or a path.
        base: the absolute directory that relative paths begin at.

    Raises:
        ConfigError: it is none of those; the message says what to write instead, and never repeats what may
            be a password.
    """
    if text != text.strip() or not text:
        raise _wrong(text, f"it is empty or has blanks around it; expected {_FORMS}")
    url = _SCHEME.fullmatch(text)
    if url is None or (not url[2].startswith("/") and url[1].lower() not in {*_SCHEMES, *_OTHER_NAMES}):
        return _in_directory(text, text, base)
    scheme, rest = url[1], url[2]
    if scheme not in _SCHEMES or not rest.startswith("//"):
        raise _unknown(text, scheme, rest)
    rest = rest[2:]
    if scheme == FILE:
        if not rest.startswith("/"):
            raise _wrong(text, f"a file URL has three slashes: write 'file:///{rest}'")
        return _in_directory(text, unquote(rest), base)
    return _in_mlflow(text, rest) if scheme == MLFLOW else _in_store(text, scheme, rest)


def parse_selector(text: str) -> Selector:
    """Return what stands after an `@`.

    Raises:
        ConfigError: it is no selector.
    """
    lowered = text.lower()
    if lowered in {"latest", "all"}:
        return Selector(SelectorKind(lowered))
    if number_of(text) is not None:
        return Selector(SelectorKind.LABEL, text)
    if is_prefix(prefix := re.sub(r"\.[xX*]\Z", ".x", text)):
        return Selector(SelectorKind.PREFIX, prefix)
    if _ALIAS.fullmatch(text) and not re.fullmatch(r"v[0-9.]+", text):
        return Selector(SelectorKind.ALIAS, text)
    digits = text.removeprefix("v").lstrip("0")
    hint = f"; did you mean '{digits}'?" if digits != text and number_of(digits) is not None else ""
    raise ConfigError(f"'{text}' selects no version: expected {_SELECTORS}{hint}")


def _in_mlflow(text: str, rest: str) -> ModelReference:
    """Read `NAME`, `NAME@SELECTOR` or `NAME/VERSION`."""
    if re.match(r"[^/@]*:[0-9]+(/|$)", rest) or "://" in rest:
        raise ConfigError(
            "source 'mlflow://...': the address of an MLflow server belongs under 'registries:', the source "
            "names only the model: mlflow://NAME@ALIAS"
        )
    name, at, selector = rest.rpartition("@") if "@" in rest else (rest, "", "")
    name, slash, version = name.rstrip("/").partition("/")
    name = unquote(name)
    if at and slash:
        raise _wrong(text, "it names a version twice: write mlflow://NAME@ALIAS or mlflow://NAME/VERSION")
    if not _MLFLOW_NAME.fullmatch(name):
        raise _wrong(text, "it names no model: expected mlflow://NAME@ALIAS, mlflow://NAME/VERSION")
    if slash and (number_of(version) is None or not version.isdecimal()):
        alias = version.rpartition("/")[2]
        hint = f"; for an alias write mlflow://{name}@{alias}" if _ALIAS.fullmatch(alias) else ""
        raise _wrong(text, f"'{version}' is no version number of MLflow{hint}")
    if slash:
        return ModelReference(MLFLOW, "", name, Selector(SelectorKind.LABEL, version))
    chosen = _selector(text, selector, given=bool(at))
    if chosen.kind is SelectorKind.PREFIX:
        raise _wrong(text, f"MLflow counts versions 1, 2, 3, ...: none begins '{chosen.value[:-2]}.'")
    if chosen.kind is SelectorKind.LABEL:
        chosen = Selector(SelectorKind.LABEL, chosen.value.removeprefix("v"))
        if not chosen.value.isdecimal():
            raise _wrong(text, f"'{chosen.value}' is no version number of MLflow, which counts 1, 2, 3, ...")
    return ModelReference(MLFLOW, "", name, chosen)


def _in_store(text: str, scheme: str, rest: str) -> ModelReference:
    """Read `bucket/prefix/NAME[@SELECTOR]`."""
    authority, _, path = rest.partition("/")
    if "@" in authority and path:
        raise ConfigError(
            f"source '{scheme}://...': credentials do not belong in a source; give them to the registry, by "
            "the environment or under 'registries:'"
        )
    if "?" in rest or "#" in rest:
        raise ConfigError(
            f"source '{scheme}://{authority}/...': a source has no query and no fragment; options of the "
            "store belong under 'registries:'"
        )
    if not authority or not path:
        raise _wrong(text, f"it names no model in the store: expected {scheme}://BUCKET/PREFIX/NAME")
    folder, name, selector = _split(text, path)
    store = f"{scheme}://{authority}" + (f"/{folder}" if folder else "")
    return ModelReference(scheme, store, name, selector)


def _in_directory(text: str, path: str, base: Path) -> ModelReference:
    """Read `/directory/NAME[@SELECTOR]`, or one relative to `base`."""
    if path.startswith("~"):
        raise _wrong(text, "'~' is not expanded: write the whole path")
    if "\0" in path:
        raise _wrong(text, "no file can have such a name")
    last = path.rpartition("/")[2].partition("@")[0]
    if last.endswith(".onnx"):
        raise _wrong(text, "it is a model file, not a model of a registry: use 'path:' for it")
    if last in {".", ".."}:
        raise _wrong(text, "its last part must be the model's name")
    whole = os.path.normpath(f"{base}/{path}" if not path.startswith("/") else path)
    folder, name, selector = _split(text, whole.lstrip("/"))
    return ModelReference(FILE, f"file://{quote(f'/{folder}')}", name, selector)


def _split(text: str, path: str) -> tuple[str, str, Selector]:
    """Split `prefix/NAME[@SELECTOR]` into prefix, name and selector."""
    folder, _, last = path.rstrip("/").rpartition("/")
    name, at, selector = last.partition("@")
    if not name and at:
        raise _wrong(text, "no model is named before the '@'")
    parts = folder.split("/") if folder else []
    if any(part in {"", ".", ".."} for part in parts):
        raise _wrong(text, "its path has empty parts, '.' or '..'")
    if parts[-1:] == ["aliases"] and len(parts) > 1:
        raise _wrong(text, f"it names an alias, not a model: write '.../{parts[-2]}@{name}'")
    if number_of(name) is not None:
        model = parts[-1] if parts else "NAME"
        raise _wrong(text, f"'{name}' is a version, not a model: write '.../{model}@{name}'")
    if not _STORED_NAME.fullmatch(name):
        raise _wrong(text, f"'{name}' cannot be a model's name: expected letters, digits and '_', '-', '.'")
    return folder, name, _selector(text, selector, given=bool(at))


def _selector(text: str, selector: str, *, given: bool) -> Selector:
    if not given:
        return Selector()
    try:
        return parse_selector(selector)
    except ConfigError as exc:
        raise _wrong(text, str(exc)) from exc


def _unknown(text: str, scheme: str, rest: str) -> ConfigError:
    lowered = scheme.lower()
    near = difflib.get_close_matches(lowered, (*_SCHEMES, *_OTHER_NAMES), n=1)
    meant = _OTHER_NAMES.get(near[0], near[0]) if near else ""
    if lowered == "models" and rest.strip("/"):
        return _wrong(text, f"write 'mlflow://{rest.lstrip('/')}'")
    if meant and not rest.startswith("//"):
        root = "/" if meant == FILE else ""
        return _wrong(text, f"'//' must follow the scheme: write '{meant}://{root}{rest.lstrip('/')}'")
    hint = f"; did you mean '{meant}://'?" if meant else ""
    return ConfigError(f"source '{scheme}://...': unknown scheme '{scheme}', expected {_FORMS}{hint}")


def _wrong(text: str, why: str) -> ConfigError:
    return ConfigError(f"source {text!r}: {why}")
