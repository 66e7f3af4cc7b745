"""Servers that tests start end with the tests, also when these are killed: by a time limit, say.

A second process watches, which nothing that ends the first one reaches. Linux could send a signal itself
(PR_SET_PDEATHSIG), but at the end of the thread that started the server, and not to what the server started.
"""

from __future__ import annotations

import atexit
import functools
import subprocess
import sys
from typing import Any, Final

_WATCHER: Final = """
import glob, os, select, signal, sys

def has_group(pid, fd):
    try:
        signal.pidfd_send_signal(fd, 0)
        return True
    except ProcessLookupError:  # ended, and waited for
        pass
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return not os.path.exists(f"/proc/{pid}")  # else the number has become somebody else's

watched = {}
for line in sys.stdin:
    for pid in [pid for pid, (fd, _) in watched.items() if not has_group(pid, fd)]:
        os.close(watched.pop(pid)[0])
    pid, _, leaves = line.rstrip().partition(" ")
    try:
        watched[int(pid)] = os.pidfd_open(int(pid)), leaves
    except ProcessLookupError:
        pass
for pid, (fd, leaves) in watched.items():
    if has_group(pid, fd):
        os.killpg(pid, signal.SIGKILL)
        select.select([fd], [], [], 60)
        for path in glob.glob(leaves):
            os.unlink(path)
"""


def end_with_us(process: subprocess.Popen[Any], *, leaves: str = "") -> None:
    """Have a process, and what it started, killed should this one end before it.

    Args:
        process: started with `start_new_session=True`: its group is what is killed.
        leaves: files that it leaves when it is killed, as a pattern; they are removed then.
    """
    pipe = _watcher().stdin
    assert pipe is not None
    pipe.write(f"{process.pid} {leaves}\n")
    pipe.flush()


@functools.cache
def _watcher() -> subprocess.Popen[str]:
    """Start the one watcher of this process; it is told by a pipe, whose end says that this process ended."""
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCHER],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    atexit.register(watcher.communicate)
    return watcher
