"""Reads `MLmodel`, the file at the root of every model that MLflow stores. Blocking."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gateway.core.registry import RegistryError

if TYPE_CHECKING:
    from collections.abc import Mapping

MLMODEL: Final = "MLmodel"
MAX_BYTES: Final = 1 << 20
SUBJECT: Final = "this version of the registered model"
"""What a version is called in messages by those who do not know which it is."""
_ONNX: Final = "onnx"


def read_mlmodel(directory: Path, subject: str) -> Mapping[str, Any]:
    """Return what the MLmodel file of a version says.

    Args:
        directory: the version's files.
        subject: what to call the version in messages.

    Raises:
        RegistryError: step `verify`; there is none, or it cannot be read.
    """
    try:
        with (directory / MLMODEL).open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _wrong(
            f"{subject} has no file {MLMODEL}: log it with mlflow.onnx.log_model, which writes one"
        ) from None
    except OSError as exc:
        raise _wrong(f"{subject}: its {MLMODEL} cannot be read: {exc.strerror}") from exc
    if len(text) > MAX_BYTES:
        raise _wrong(f"{subject}: its {MLMODEL} is longer than {MAX_BYTES} bytes")
    try:
        content = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError) as exc:
        raise _wrong(f"{subject}: its {MLMODEL} is not YAML{_place(exc)}") from exc
    if not isinstance(content, dict):
        raise _wrong(f"{subject}: its {MLMODEL} is no mapping")
    return content


def model_filename(directory: Path, subject: str = SUBJECT) -> str:
    """Return the path of a version's ONNX file, relative to `directory`, as its MLmodel names it.

    Args:
        directory: the version's files.
        subject: what to call the version in messages, `registered model 'fraud' version 3`.

    Raises:
        RegistryError: step `verify`; it was logged as something else, or names a file it does not have.
    """
    flavors = read_mlmodel(directory, subject).get("flavors")
    if not isinstance(flavors, dict) or _ONNX not in flavors:
        names = ", ".join(sorted(str(name)[:40] for name in flavors)[:8]) if isinstance(flavors, dict) else ""
        raise _wrong(
            f"{subject} has no ONNX flavour (it has {names or 'none'}): log it with mlflow.onnx.log_model"
        )
    onnx = flavors[_ONNX]
    name = onnx.get("data") if isinstance(onnx, dict) else None
    if not isinstance(name, str) or not _is_inside(directory, name):
        raise _wrong(f"{subject}: its {MLMODEL} names {name!r:.200} as its ONNX file, which it does not have")
    return PurePosixPath(name).as_posix()


def signature_of(directory: Path, subject: str) -> tuple[list[Any], list[Any]]:
    """Return MLflow's specs of a version's inputs and outputs; empty lists where it has none.

    Raises:
        RegistryError: step `verify`; as `read_mlmodel`, or the signature is malformed.
    """
    signature = read_mlmodel(directory, subject).get("signature")
    if signature is None:
        return [], []
    if not isinstance(signature, dict):
        raise _wrong(f"{subject}: the signature in its {MLMODEL} is no mapping")
    return _specs(signature, "inputs", subject), _specs(signature, "outputs", subject)


def _specs(signature: Mapping[str, Any], side: str, subject: str) -> list[Any]:
    text = signature.get(side)
    if text is None:
        return []
    try:
        specs = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        specs = None
    if not isinstance(specs, list):
        raise _wrong(f"{subject}: the signature's {side} in its {MLMODEL} are no JSON list")
    return specs


def _is_inside(directory: Path, name: str) -> bool:
    """Say whether `name` is a file under `directory`, no link of it leading out."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
        return False
    try:
        found = (directory / path).resolve(strict=True)
        return found.is_file() and found.is_relative_to(directory.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def _place(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f" (line {mark.line + 1})" if mark is not None else ""


def _wrong(message: str) -> RegistryError:
    return RegistryError("verify", message, may_pass=False)
