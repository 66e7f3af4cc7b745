"""How a command ends: its exit codes, and the exception that carries one with a message for the terminal."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """Exit codes of every command."""

    OK = 0
    """Done; for `serve`, stopped by a signal and everything accepted was answered."""
    FAILED = 1
    """The server refused, the file is wrong, a port is taken, or `serve` was stopped by force: by a second
    signal, or because a model still ran after the grace period."""
    USAGE = 2
    """The command line itself is wrong."""
    UNREACHABLE = 3
    """No gateway answers at the address."""


class CommandFailed(Exception):
    """Ends a command with a message.

    Attributes:
        code: what the process exits with.
    """

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code
