"""Ends the process without tearing the interpreter down."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import NoReturn


def end_process(code: int) -> NoReturn:
    """End this process with `code`, as `sys.exit` would, but leave the interpreter as it is.

    obstore and Arrow have threads of their own, which nothing joins. One that asks for the interpreter while
    it is torn down is ended in the midst of Rust or C++, and that aborts the process: of commands that end
    right after they read from a store, one in twenty.

    What must happen at the end does, in the interpreter's order: Python's own threads are waited for,
    functions registered with `atexit` are called, standard output and error are written out.

    Args:
        code: exit code, 0 to 255.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing ends its processes
    atexit._run_exitfuncs()  # noqa: SLF001
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # Whoever read it went away; or it was closed.
            code = code or 1
    os._exit(code)
