"""What is wrong with rollout files: given alone, as a directory, or through the gateway's configuration."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Final

from gateway.commands.failure import CommandFailed
from gateway.config.rollout_listing import read_directory, read_file, read_rollout
from gateway.config.rollout_set import RolloutSet
from gateway.config.rollout_settings import entry_splits
from gateway.config.rollout_values import MAX_DURATION_S, percent_text
from gateway.core.rollout import RolloutSpec, WeightStep

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gateway.config.rollout_file import RolloutFile
    from gateway.config.rollout_set import RolloutFiles
    from gateway.config.schema import GatewayConfig

_MARK: Final = re.compile(rb"""^\{?\s*["']?(kind|apiVersion)["']?\s*:""", re.MULTILINE)


def is_rollout(file: Path) -> bool:
    """Whether a file means to be a rollout rather than a configuration; it may be no YAML at all."""
    return bool(_MARK.search(read_file(file).content or b""))


def validate_rollout(file: Path) -> None:
    """Print a summary of a valid rollout file, and what is odd in it.

    Raises:
        ConfigError: every complaint on a line of its own.
    """
    print_valid(read_rollout(file))


def validate_directory(directory: Path) -> None:
    """Print a summary of every file in a directory of rollout files.

    Raises:
        CommandFailed: a file is wrong, or the directory cannot be read; every complaint on its own line.
    """
    files = _look(RolloutSet(settle_s=0.0), directory)
    if complaints := list(_complaints(files)):
        raise CommandFailed("\n".join(complaints))
    for file in files.specs:
        print_valid(file)


def print_valid(file: RolloutFile) -> None:
    """Print what a valid file says, in a line, and its warnings."""
    sys.stdout.write(f"{file.path}: valid; {summary(file)}\n")
    for warning in file.warnings:
        sys.stdout.write(f"warning: {warning}\n")


def summary(file: RolloutFile) -> str:
    """Return what a file says in few words."""
    spec = file.spec
    if not isinstance(spec, RolloutSpec):
        parts = ", ".join(f"{percent_text(ppm)} to version {text}" for text, ppm in spec.weights.items())
        return f"split of model '{spec.model}': {parts or 'shadows alone'}"
    weights = [percent_text(step.weight_ppm) for step in spec.steps if isinstance(step, WeightStep)]
    way = f", {', '.join(weights)}" if weights else ""
    stable = spec.stable.text if spec.stable else "what serves"
    targets = f"{spec.canary.text} beside {stable}" if spec.canary else "shadows alone"
    return f"rollout '{spec.name}' of model '{spec.model}': {targets}; {len(spec.steps)} steps{way}"


def configured_rollouts(config: GatewayConfig, place: Path) -> tuple[list[str], tuple[RolloutFile, ...]]:
    """Look at the rollout files that a gateway's configuration names.

    Args:
        config: the configuration.
        place: its file, for messages.

    Returns:
        Every complaint, and the files that are valid.
    """
    directory = config.rollouts.directory
    if directory is None:
        return [], ()
    known = RolloutSet(
        settle_s=0.0,
        fixed=entry_splits(config.models, str(place)),
        max_window_s=config.rollouts.max_rollback_window_s,
    )
    files = _look(known, directory)
    return [*_complaints(files), *_strangers(config, files.specs)], files.specs


def _look(known: RolloutSet, directory: Path) -> RolloutFiles:
    return known.see(read_directory(directory), 0.0, MAX_DURATION_S * 1e6)


def _complaints(files: RolloutFiles) -> Iterator[str]:
    if files.error:
        yield files.error
    for status in files.statuses:
        yield from status.error.splitlines()


def _strangers(config: GatewayConfig, files: Sequence[RolloutFile]) -> Iterator[str]:
    """Yield files about models that the configuration does not know."""
    known = {model.name for model in config.models}
    repository = config.repository
    for file in files:
        name = file.spec.model
        if name not in known and not (repository and (repository.path / name).is_dir()):
            listed = f"there are {', '.join(sorted(known))}" if known else "it names none"
            yield f"{file.path}:1: model: the configuration has no model '{name}'; {listed}"
