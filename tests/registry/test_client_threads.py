"""The threads in which obstore talks to stores."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from gateway.core.background import LESS

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="threads have a niceness of their own on Linux"
)

_PROGRAM = """
import asyncio, json, os
from pathlib import Path
{imports}
from gateway.commands.ending import end_process
from gateway.registry.client_threads import start_giving_way

async def ask():
    store = MemoryStore()
    await store.put_async("a", b"x")
    await store.get_async("a")

start_giving_way()
{asking}
own = os.getpriority(os.PRIO_PROCESS, 0)
tasks = [int(task.name) for task in Path("/proc/self/task").iterdir() if int(task.name) != os.getpid()]
print(json.dumps([own, [os.getpriority(os.PRIO_PROCESS, task) for task in tasks]]))
end_process(0)
"""


def told(imports: str, asking: str) -> tuple[int, list[int]]:
    """Return the niceness of a new process, and those of its other threads once it has asked a store."""
    program = _PROGRAM.format(imports=imports, asking=asking)
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    own, others = json.loads(answer.stdout)
    return own, others


def test_they_give_way() -> None:
    """Every thread that obstore has started once it was asked gives way; who asked does not."""
    own, others = told("from obstore.store import MemoryStore", "asyncio.run(ask())")
    assert others
    assert set(others) == {min(19, own + LESS)}


def test_none_without_obstore() -> None:
    """Nothing is imported and no thread started for who has no store."""
    own, others = told("", "assert 'obstore' not in __import__('sys').modules")
    assert others == []
    assert own < 19
