"""The `rollouts:` section: where rollout files are, what is remembered of them, and who is told."""

from __future__ import annotations

import socket
from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, model_validator

from gateway.config.rollout_file import RolloutFile
from gateway.config.rollout_values import check_url
from gateway.config.section import PositiveSeconds, Section

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.config.model_settings import NamedModelSettings


class RolloutSettings(Section):
    """Canary and shadow rollouts from files."""

    directory: Path | None = None
    """Directory of rollout files, watched; relative to the configuration file. Unset: no rollouts."""
    state_directory: Path | None = None
    """Where progress, evidence and the audit chain are kept, on a local disk, for one process alone. Unset:
    `rollout-state` beside `directory`."""
    poll_interval_s: PositiveSeconds = 0.5
    """Looks at the directory at least this often; changes are noticed sooner by inotify."""
    settle_s: PositiveSeconds = 0.3
    """A file is taken once it has been at rest so long. Write files beside and rename them: then none is ever
    seen half-written."""
    replica: str = Field("", max_length=128)
    """Name of this process in evidence and audit; empty: the host's name."""
    max_rollback_window_s: PositiveSeconds = 7 * 86_400.0
    """Longest `keep_stable_warm` that a file may ask for: so long two versions hold memory."""
    approvals_socket: Path | None = None
    """Unix socket on which operators approve; who they are is told by the kernel. Unset:
    `approvals.sock` in `state_directory`."""
    webhooks: tuple[Annotated[str, AfterValidator(check_url)], ...] = Field((), max_length=16)
    """URLs that are sent every transition by POST, as JSON."""

    @model_validator(mode="after")
    def _apart(self) -> RolloutSettings:
        if self.directory is not None and self.state_directory is not None:
            if self.state_directory.is_relative_to(self.directory):
                raise ValueError(
                    "state_directory must not lie in directory, which may be read-only and is watched"
                )
        elif self.state_directory is not None:
            raise ValueError("state_directory needs a directory of rollout files")
        return self

    def state(self) -> Path | None:
        """Return where state is kept; None without a directory of files."""
        if self.state_directory is not None or self.directory is None:
            return self.state_directory
        return self.directory.parent / "rollout-state"

    def replica_name(self) -> str:
        """Return the name of this process."""
        return self.replica or socket.gethostname()

    def approvals(self) -> Path | None:
        """Return the socket for approvals; None without state."""
        state = self.state()
        return self.approvals_socket or (state / "approvals.sock" if state else None)


def entry_splits(models: Iterable[NamedModelSettings], place: str) -> tuple[RolloutFile, ...]:
    """Return the splits that entries of the gateway's configuration ask for.

    Args:
        models: the entries.
        place: the configuration's file, for messages.
    """
    found = ((model.name, model.split_spec()) for model in models)
    return tuple(RolloutFile(spec, f"{place}: models.{name}", "") for name, spec in found if spec)
