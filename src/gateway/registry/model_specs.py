"""Makes the spec of a registry's model from files beside its versions and the operator's settings.

A registry may hold `config.pbtxt`, and the label files that it names, beside the versions of a model. They
are read when the model is resolved, so that its spec is known before a version is fetched; the operator's
settings apply over them. What lies inside a version describes that version alone and comes too late for
this: a config.pbtxt there is refused when the version is verified (`provider.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, runtime_checkable

from gateway.core.errors import ModelLoadError
from gateway.core.registry import RegistryError
from gateway.models.pbtxt import CONFIG_FILE, JSON_CONFIG, DeclaredModel, declare, parse_json, parse_text
from gateway.registry.verification.authored_options import check_authored_options

if TYPE_CHECKING:
    from gateway.core.options import ModelSpec

MAX_MODEL_FILE_BYTES: Final = 256 << 10
"""Largest config.pbtxt or label file of a registry that is read."""
MAX_LABEL_FILES: Final = 16
"""Most label files of one model."""

ReadText: TypeAlias = Callable[[str], Awaitable[str | None]]
"""Gives the text of a file beside the versions by its path, None when there is none."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A small file beside the versions of a model.

    Attributes:
        etag: changes with the content.
        content: all of it.
    """

    etag: str
    content: bytes


@runtime_checkable
class ModelFileReader(Protocol):
    """A ModelRegistry that can also hold files beside the versions of a model; one that cannot has none."""

    async def model_file(self, model: str, path: str, known: ModelFile | None) -> ModelFile | None:
        """Return a file beside the versions, None when there is none.

        Args:
            model: the model.
            path: relative to the model, `/` between its parts.
            known: what an earlier call returned; it is returned again when it has not changed, without the
                content being read.

        Raises:
            RegistryError: step `resolve`; also for a file of more than MAX_MODEL_FILE_BYTES.
        """


class Undescribed(RegistryError):
    """The registry answers, but how the model is to be served cannot be made out."""

    def __init__(self, message: str) -> None:
        super().__init__("resolve", message, may_pass=True)


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """How a model is to be served.

    Attributes:
        spec: its settings.
        model_filename: the file to load in a version's directory, if config.pbtxt names one; else empty.
        warnings: what config.pbtxt declares and the gateway ignores.
        texts: the files it was made from, by path, absent ones left out.
    """

    spec: ModelSpec
    model_filename: str = ""
    warnings: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)


async def describe(
    base: ModelSpec,
    read: ReadText,
    *,
    adjust: Callable[[ModelSpec], ModelSpec],
    label_files: Mapping[str, str],
    config: str = "",
) -> ModelDescription:
    """Return how to serve a model.

    Args:
        base: its public name and defaults.
        read: reads the files beside the versions.
        adjust: the operator's settings, applied over the model's own.
        label_files: output -> label file that the operator named; before those of config.pbtxt.
        config: JSON ModelConfig in place of config.pbtxt, or empty.

    Raises:
        Undescribed: a file is wrong or missing, or settings contradict each other.
        RegistryError: step `resolve`, from `read`.
    """
    texts: dict[str, str] = {}
    try:
        declared, named = await _declared(base, read, config, texts)
        check_authored_options(declared.spec.backend_options, base.backend_options)
        spec = adjust(declared.spec)
        files = {**declared.label_files, **label_files}
    except ModelLoadError as error:
        raise Undescribed(str(error)) from error
    if len(set(files.values())) > MAX_LABEL_FILES:
        raise Undescribed(f"the model has more than {MAX_LABEL_FILES} label files")
    labels = {output: await _lines(read, path, texts) for output, path in files.items()}
    spec = replace(spec, labels={**spec.labels, **labels})
    return ModelDescription(spec, named, declared.warnings, texts)


def text_of(file: ModelFile, path: str) -> str:
    """Return a file's text.

    Raises:
        Undescribed: it is not UTF-8.
    """
    try:
        return file.content.decode()
    except UnicodeDecodeError as error:
        raise Undescribed(f"file '{path}' is not UTF-8 text") from error


async def _declared(
    base: ModelSpec, read: ReadText, config: str, texts: dict[str, str]
) -> tuple[DeclaredModel, str]:
    """Return what the config declares, and the model file that it names."""
    if config:
        message, source = parse_json(config), JSON_CONFIG
    else:
        text = await read(CONFIG_FILE)
        if text is None:
            return DeclaredModel(base, "", {}, ()), ""
        texts[CONFIG_FILE] = text
        # In a thread: protobuf's text parser takes a tenth of a second for the largest file.
        message, source = await asyncio.to_thread(parse_text, text), CONFIG_FILE
    # The public name is the operator's choice, as for a directory that is named one by one: not checked.
    declared = declare(message, base, source=source)
    return declared, declared.model_filename if message.default_model_filename else ""


async def _lines(read: ReadText, path: str, texts: dict[str, str]) -> tuple[str, ...]:
    text = await read(path)
    if text is None:
        raise Undescribed(f"label file '{path}' is not in the registry, beside the versions of the model")
    texts[path] = text
    return tuple(line.strip() for line in text.splitlines())
