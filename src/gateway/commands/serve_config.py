"""Builds the configuration of `gateway serve` from its paths, its flags and, if named, a file: flags win."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gateway.commands.failure import CommandFailed, Exit
from gateway.config.model_settings import NamedModelSettings
from gateway.config.schema import GatewayConfig, RepositorySettings, load_config
from gateway.config.section import Section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SectionT = TypeVar("SectionT", bound=Section)
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_.\-]")
_USAGE: Final = "gateway serve MODEL.onnx ... | REPOSITORY_DIR | --config FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeFlags:
    """The flags of `gateway serve` that stand for settings; None where the flag was not given.

    Attributes:
        host: address of HTTP, gRPC and metrics.
        admin_host: address of administration; never follows `host`.
        ports: port name (http, grpc, metrics, admin) -> number.
        repository_mode: none, explicit or poll.
        load_at_start: models to load in mode explicit.
        grpc_transport: native or grpcio.
        log_level: least level written.
        log_format: auto, json or console.
        access_log: one line per request.
    """

    host: str | None = None
    admin_host: str | None = None
    ports: Mapping[str, int | None]
    repository_mode: str | None = None
    load_at_start: Sequence[str] = ()
    grpc_transport: str | None = None
    log_level: str | None = None
    log_format: str | None = None
    access_log: bool | None = None


def build_config(paths: Sequence[Path], file: Path | None, flags: ServeFlags) -> GatewayConfig:
    """Return the configuration to serve.

    A model named by a path replaces the path of the file's model of that name and keeps its other settings;
    a repository directory replaces the file's repository likewise.

    Raises:
        CommandFailed: a path is not what can be served, or there is nothing to serve.
        ConfigError: the file is wrong.
    """
    config = load_config(file) if file else GatewayConfig()
    config = _with_paths(config, paths)
    if not config.models and config.repository is None and not config.triton:
        raise CommandFailed(f"nothing to serve; usage: {_USAGE}", Exit.USAGE)
    return _with_flags(config, flags)


def _with_paths(config: GatewayConfig, paths: Sequence[Path]) -> GatewayConfig:
    models = [classify_path(path) for path in paths]
    repositories = [m.path for m in models if isinstance(m, RepositorySettings)]
    if len(repositories) > 1:
        listed = ", ".join(map(str, repositories))
        raise CommandFailed(f"one repository directory can be served, got {listed}", Exit.USAGE)
    named = [m for m in models if isinstance(m, NamedModelSettings)]
    return changed(
        config,
        models=_merged_models(config.models, named),
        repository=_merged_repository(config.repository, repositories),
    )


def _merged_models(
    old: Sequence[NamedModelSettings], new: Sequence[NamedModelSettings]
) -> tuple[NamedModelSettings, ...]:
    paths: dict[str, Path | None] = {}
    for model in new:
        if model.name in paths:
            raise CommandFailed(
                f"{paths[model.name]} and {model.path} would both be served as '{model.name}': rename one, "
                "or name them in a configuration file",
                Exit.USAGE,
            )
        paths[model.name] = model.path
    kept = [changed(model, path=paths.pop(model.name, model.path)) for model in old]
    return (*kept, *(model for model in new if model.name in paths))


def _merged_repository(old: RepositorySettings | None, new: Sequence[Path]) -> RepositorySettings | None:
    if not new:
        return old
    return changed(old, path=new[0]) if old else RepositorySettings(path=new[0])


def classify_path(path: Path) -> NamedModelSettings | RepositorySettings:
    """Return what a path names: one model (an .onnx file, or a directory of versions) or a repository.

    Raises:
        CommandFailed: neither; with a hint at what was probably meant.
    """
    path = path.absolute()
    if path.is_file():
        return _model_file(path)
    if not path.is_dir():
        raise CommandFailed(f"{path}: no such file or directory", Exit.USAGE)
    children = _listed(path)
    if (path / "model.onnx").exists():
        raise CommandFailed(_version_directory_hint(path), Exit.USAGE)
    if any(is_version_name(child.name) for child in children):
        return NamedModelSettings(name=model_name(path.name), path=path)
    if loose := [child.name for child in children if child.suffix == ".onnx"]:
        raise CommandFailed(
            f"{path} holds {', '.join(sorted(loose)[:3])} directly: name the files themselves "
            f"(`gateway serve {path}/*.onnx`), or arrange them as NAME/1/model.onnx",
            Exit.USAGE,
        )
    return RepositorySettings(path=path)


def _model_file(path: Path) -> NamedModelSettings:
    if path.suffix in {".yaml", ".yml"}:
        raise CommandFailed(f"{path} is no model; for a configuration file write --config {path}", Exit.USAGE)
    if path.suffix != ".onnx":
        raise CommandFailed(f"{path}: expected an .onnx file or a repository directory", Exit.USAGE)
    return NamedModelSettings(name=model_name(path.stem), path=path)


def _version_directory_hint(path: Path) -> str:
    if is_version_name(path.name):
        return (
            f"{path} is one version of a model: serve the model with `gateway serve {path.parent}`, "
            f"or every model beside it with `gateway serve {path.parent.parent}`"
        )
    return (
        f"{path} holds model.onnx directly: serve the file with `gateway serve {path / 'model.onnx'}`, "
        f"or move it to {path / '1' / 'model.onnx'} to make this a model directory"
    )


def _listed(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError as exc:
        raise CommandFailed(f"{directory}: cannot be read: {exc.strerror}") from exc


def is_version_name(name: str) -> bool:
    """Whether a directory name is a version number: positive, no leading zero."""
    return name.isascii() and name.isdigit() and not name.startswith("0")


def model_name(stem: str) -> str:
    """Return a valid public name for a file or directory called `stem`."""
    return _NOT_IN_NAMES.sub("_", stem)[:128] or "model"


def _with_flags(config: GatewayConfig, flags: ServeFlags) -> GatewayConfig:
    server = changed(
        config.server,
        ports=changed(config.server.ports, **flags.ports),
        host=flags.host,
        admin_host=flags.admin_host,
        grpc=changed(config.server.grpc, transport=flags.grpc_transport),
    )
    log = changed(
        config.telemetry.log, level=flags.log_level, format=flags.log_format, access=flags.access_log
    )
    repository = config.repository
    if repository is not None:
        loaded = tuple(flags.load_at_start) or None
        repository = changed(repository, mode=flags.repository_mode, load_at_start=loaded)
    elif flags.repository_mode or flags.load_at_start:
        raise CommandFailed("--repository-mode and --load-model need a repository directory", Exit.USAGE)
    if flags.load_at_start and repository is not None and repository.mode != "explicit":
        raise CommandFailed("--load-model needs --repository-mode explicit", Exit.USAGE)
    telemetry = changed(config.telemetry, log=log)
    return changed(config, server=server, repository=repository, telemetry=telemetry)


def changed(section: SectionT, **values: Any) -> SectionT:
    """Return `section` with the values that are not None; they must have been checked by the caller."""
    return section.model_copy(update={name: value for name, value in values.items() if value is not None})
