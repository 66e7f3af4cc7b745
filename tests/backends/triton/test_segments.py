"""Shared memory segments: private, reserved, never left behind for long."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest

from gateway.backends.triton.segments import PREFIX, Owner, has_ended, sweep
from tests.backends.triton.holder import holding

if TYPE_CHECKING:
    from collections.abc import Iterator

_HOLDER: Final = """
import sys
from pathlib import Path
from gateway.backends.triton.segments import Owner
owner = Owner(Path(sys.argv[1]))
segments = [owner.segment(4096), owner.segment(4096)]
print(owner.name, *(segment.name for segment in segments), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    owner = Owner(tmp_path)
    yield owner
    owner.close()


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_what_is_written_is_in_the_file() -> None:
    """Whoever opens the segment by its key sees the same memory; nobody else's user may."""
    owner = Owner()
    segment = owner.segment(4096)
    try:
        path = Path("/dev/shm") / segment.key.lstrip("/")
        assert path.stat().st_blocks * 512 >= 4096, "memory that is not taken now may be gone later"
        segment.memory[:3] = np.frombuffer(b"abc", np.uint8)
        assert path.read_bytes()[:3] == b"abc"
        assert path.stat().st_mode & 0o777 == 0o600
    finally:
        segment.close()
        owner.close()
    assert not path.exists()
    assert not (path.parent / owner.name).exists()


def test_closing_twice_is_closing(tmp_path: Path, owner: Owner) -> None:
    """Nothing is closed that has meanwhile become somebody else's."""
    segment = owner.segment(4096)
    segment.close()
    other = owner.segment(4096)
    segment.close()
    assert names(tmp_path) == {owner.name, other.name}
    other.close()
    owner.close()
    again = Owner(tmp_path)
    owner.close()
    assert names(tmp_path) == {again.name}
    assert sweep(tmp_path) == 0
    again.close()


def test_memory_is_reserved(tmp_path: Path, owner: Owner) -> None:
    """Shared memory that is not there is refused at once, and leaves nothing behind."""
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        owner.segment(1 << 60)
    assert caught.value.errno in {errno.EFBIG, errno.ENOSPC, errno.EINVAL}
    assert names(tmp_path) == {owner.name}


def test_an_exit_leaves_nothing(tmp_path: Path) -> None:
    """A process that ends without closing takes its segments with it."""
    with holding(_HOLDER, tmp_path) as (process, (owner, *segments)):
        assert owner.startswith(PREFIX)
        assert names(tmp_path) == {owner, *segments}
        process.communicate("go\n")
        assert process.returncode == 0
    assert not names(tmp_path)


def test_what_a_killed_process_left_is_swept_and_what_is_in_use_is_not(tmp_path: Path, owner: Owner) -> None:
    """Locks tell them apart."""
    mine = owner.segment(4096)
    with holding(_HOLDER, tmp_path) as (process, (killed, *left)):
        assert sweep(tmp_path) == 0
        assert not any(has_ended(name, tmp_path) for name in (mine.name, *left))
        process.kill()
        process.wait()
        assert names(tmp_path) == {killed, *left, owner.name, mine.name}
        assert [has_ended(name, tmp_path) for name in (mine.name, *left)] == [False, True, True]
        (tmp_path / "other").touch()
        assert sweep(tmp_path) == 2
    assert names(tmp_path) == {owner.name, mine.name, "other"}
    assert [has_ended(name, tmp_path) for name in (mine.name, *left)] == [False, True, True]
    mine.close()


def test_a_name_outlives_its_segment_as_long_as_its_owner(tmp_path: Path, owner: Owner) -> None:
    """A region that is dropped may still be in use at the endpoint: nobody else ends it."""
    segment = owner.segment(4096)
    segment.close()
    assert not has_ended(segment.name, tmp_path)
    owner.close()
    assert has_ended(segment.name, tmp_path)


@pytest.mark.parametrize(
    "name", ["", "other", PREFIX, PREFIX + "0" * 32, f"{PREFIX}{'0' * 32}-../{'0' * 29}"]
)
def test_what_is_not_of_a_gateway_never_ends(tmp_path: Path, name: str) -> None:
    """Others have regions too."""
    assert not has_ended(name, tmp_path)
