"""The threads in which obstore talks to stores."""

from __future__ import annotations

import sys
import threading

from gateway.core.background import give_way


def start_giving_way() -> None:
    """Have obstore start its threads now, once for the process, to give way to others; blocking.

    Else they would have the event loop's claim to the processors, as it asks first; reading 200 MB keeps them
    busy for half a second. Where obstore is not in use nothing happens.
    """
    if "obstore" in sys.modules:
        thread = threading.Thread(target=_start, name="obstore-start")
        thread.start()
        thread.join()


def _start() -> None:
    from obstore.store import MemoryStore  # noqa: PLC0415 - an extra

    give_way()
    MemoryStore().list().collect()
