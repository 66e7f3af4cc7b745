"""What can be wrong with the state directory, and what the disk says about it in words."""

from __future__ import annotations

import errno
import os
from typing import Final

from gateway.core.state import StateUnavailable

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class OutcomeUnknown(StateUnavailable):
    """A write failed and could not be undone: after a restart it is there or it is not, as a whole."""


class StateDamaged(StateUnavailable):
    """A file of the state directory holds something that was never written so."""


def unavailable(what: str, error: OSError, *, undone: bool = True) -> StateUnavailable:
    """Return the error for a failure of the disk.

    Args:
        what: could not be done, in words.
        error: the disk's.
        undone: nothing was changed; else that is not known.
    """
    if undone:
        return StateUnavailable(f"{what}: {_words(error)}; nothing was changed")
    return OutcomeUnknown(
        f"{what}: {_words(error)}; it could not be undone either, so a restart may find it done"
    )


def _words(error: OSError) -> str:
    said = error.strerror or type(error).__name__
    if error.errno in _FULL:
        return f"the disk of the state directory is full ({said}); free some"
    if error.errno in _DENIED:
        return (
            f"the state directory may not be read or written ({said}); it must belong to user "
            f"{os.geteuid()}, who runs the gateway, with mode 0700, on a disk that is not read-only"
        )
    return f"the state directory cannot be read or written ({said}); check its disk"
