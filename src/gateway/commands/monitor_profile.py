"""`gateway monitor profile`: makes a reference profile from training data."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.commands.failure import CommandFailed, Exit
from gateway.core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.monitor.profile.reference import Profile, Task
    from gateway.monitor.profile.tables import Mapped

_DEFAULT_SCORES: Final = {"binary": "probabilities[1]", "multiclass": "probabilities"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions:
    """What the command line says.

    Attributes:
        data: Parquet or CSV file, or a directory of Parquet files; rows in order of time.
        model: public model name.
        out: directory; the file is `MODEL/VERSION/profile.json` in it, without a version
            `MODEL/profile.json`.
        version: 0: any.
        task: `binary`, `multiclass`, `regression`, `ranking`, or empty.
        score: `SIGNAL` or `SIGNAL=COLUMN`.
        prediction: likewise, of the predicted class; may be empty.
        label: column of the truth; may be empty.
        classes: labels in the order of the scores.
        threshold: of a binary score.
        outputs: `SIGNAL` or `SIGNAL=COLUMN`: what the model gives, beside score and prediction.
        segments: likewise: what segments are made of.
        names: `SIGNAL=COLUMN`: what other columns are called in the log.
        tensors: `TENSOR=COLUMN,COLUMN,...`: columns that the model takes as one tensor, logged as
            `TENSOR[0]`, `TENSOR[1]`, ...
        labelled: such columns are logged as `TENSOR[COLUMN]`: the log's policy names them.
        ignored: columns that are left out.
    """

    data: Path
    model: str
    out: Path
    version: int = 0
    task: str = ""
    score: str = ""
    prediction: str = ""
    label: str = ""
    classes: tuple[str, ...] = ()
    threshold: float = 0.5
    outputs: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    labelled: bool = False
    ignored: tuple[str, ...] = ()


def profile(options: ProfileOptions) -> None:
    """Make the profile, write it, and say what is in it.

    Raises:
        CommandFailed: the data or the options do not do, or the extra `monitor` is not installed.
    """
    try:
        from gateway.monitor.profile.artifact import FILE_NAME, write  # noqa: PLC0415 - needs an extra
    except ImportError as error:
        raise CommandFailed(
            f"{error.name} is not installed: pip install 'model-gateway[monitor]'", Exit.USAGE
        ) from error
    place = options.out / options.model / (str(options.version) if options.version else "") / FILE_NAME
    try:
        made = made_from(options)
        write(made, place)
    except (ConfigError, ImportError) as error:
        raise CommandFailed(str(error)) from error
    sys.stdout.write(f"{place}\n{summary(made)}\n")


def made_from(options: ProfileOptions) -> Profile:
    """Return the profile that the options ask for.

    Raises:
        ConfigError: the data or the options do not do.
    """
    from gateway.monitor.profile.build import BuildOptions, build  # noqa: PLC0415 - needs an extra
    from gateway.monitor.profile.tables import TableFile  # noqa: PLC0415 - likewise

    build_options = BuildOptions(
        model=options.model,
        version=options.version,
        created_s=time.time(),
        source=options.data.name,
        task=_task(options),
        segments=tuple(_signal(s) for s in options.segments),
    )
    return build(TableFile(options.data, _mapped(options), options.model), build_options)


def summary(profile: Profile) -> str:
    """Return what is in a profile, for the terminal."""
    signals = f"{len(profile.numeric)} numbers, {len(profile.categories)} categories"
    more = f"{len(profile.embeddings)} embeddings, {len(profile.by_segment)} segments"
    blocks = (
        "thresholds by blocks of time" if profile.blocks else "too few rows for thresholds by blocks of time"
    )
    lines = [f"{profile.rows} rows, {signals}, {more}", blocks]
    if profile.performance:
        lines.append(", ".join(f"{name} {value:.4g}" for name, value in profile.performance.items()))
    return "\n".join(lines)


def _task(options: ProfileOptions) -> Task | None:
    from gateway.monitor.profile.reference import Task, TaskKind  # noqa: PLC0415 - needs an extra

    if not options.task:
        if options.score or options.label:
            raise ConfigError("--score and --label need --task: binary, multiclass, regression or ranking")
        return None
    try:
        kind = TaskKind(options.task)
    except ValueError:
        raise ConfigError(
            f"--task {options.task!r} is none of binary, multiclass, regression, ranking"
        ) from None
    score = _score(options)
    if not score:
        raise ConfigError(f"--task {options.task} needs --score: the signal of the predicted value")
    return Task(
        kind=kind,
        score=_signal(score),
        prediction=_signal(options.prediction),
        classes=options.classes,
        threshold=options.threshold,
    )


def _score(options: ProfileOptions) -> str:
    return options.score or _DEFAULT_SCORES.get(options.task, "")


def _signal(text: str) -> str:
    return text.partition("=")[0]


def _mapped(options: ProfileOptions) -> Mapped:
    from gateway.monitor.profile.tables import Mapped  # noqa: PLC0415 - needs an extra

    given = (_score(options), options.prediction, *options.outputs, *options.segments, *options.names)
    names = {column: signal for signal, _, column in (text.partition("=") for text in given) if column}
    for text in options.tensors:
        tensor, _, columns = text.partition("=")
        if not columns:
            raise ConfigError(f"--tensor {text!r} must be NAME=COLUMN,COLUMN,...")
        for i, column in enumerate(columns.split(",")):
            names[column] = f"{tensor}[{column if options.labelled else i}]"
    outputs = {_signal(text) for text in (options.prediction, *options.outputs) if text}
    if score := _score(options):
        outputs.add(_signal(score).partition("[")[0])
    return Mapped(
        names=names,
        outputs=frozenset(outputs),
        segments=frozenset(_signal(text) for text in options.segments),
        ignored=frozenset(options.ignored),
        label=options.label,
    )
