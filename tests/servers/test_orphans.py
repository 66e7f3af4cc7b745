"""Servers of tests that are killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PATIENCE_S: Final = 60.0
_TESTS: Final = """
import subprocess, sys, threading
from tests.servers.orphans import end_with_us

# A server with a process of its own, as Triton and its models; started in a thread that ends before it.
server = "import subprocess, sys, time; subprocess.Popen(['sleep', '600']); print('runs', flush=True); "

def start():
    global process
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", server + sys.argv[2]]
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True)
    end_with_us(process, leaves=sys.argv[1] + "/left-*")

thread = threading.Thread(target=start)
thread.start()
thread.join()
assert process.stdout.readline() == b"runs\\n"
print(process.pid, flush=True)
sys.stdin.read()
"""


def group_of(pid: int) -> list[int]:
    """Return pidfds of a process group's members."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == pid:
                    members.append(os.pidfd_open(int(entry.name)))
            except OSError:
                continue
    return members


@pytest.mark.parametrize("server", ["time.sleep(600)", "sys.stdin.read()"], ids=["stays", "ends by itself"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_they_end_with_their_groups(tmp_path: Path, number: signal.Signals, server: str) -> None:
    """Also when the thread that started them is long gone, or they ended and left what they had started."""
    (tmp_path / "left-1").touch()
    (tmp_path / "other").touch()
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", _TESTS, str(tmp_path), server]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=ROOT, text=True) as tests:
        assert tests.stdout is not None
        assert tests.stderr is not None
        members = group_of(int(tests.stdout.readline()))
        assert len(members) == 2
        assert (tmp_path / "left-1").exists()
        tests.send_signal(number)
        for member in members:
            assert select.select([member], [], [], PATIENCE_S)[0], "something outlives the tests"
            os.close(member)
        assert tests.stderr.read() == "", "which the watcher has too: it has ended, and without complaint"
    assert {path.name for path in tmp_path.iterdir()} == {"other"}


def test_what_ended_before_is_left_alone(tmp_path: Path) -> None:
    """Its number may be somebody else's by then; and tests that end well wait for no watcher."""
    script = (
        "import subprocess, sys; from tests.servers.orphans import end_with_us\n"
        "done = subprocess.Popen(['true'], start_new_session=True)\n"
        "end_with_us(done, leaves=sys.argv[1] + '/left-*'); done.wait(); end_with_us(done)\n"
    )
    (tmp_path / "left-1").touch()
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=PATIENCE_S, check=True)
    assert done.stderr == b""  # which the watcher has too, and it has ended
    assert (tmp_path / "left-1").exists()
