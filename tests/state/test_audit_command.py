"""`gateway audit` on chains as a gateway leaves them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from gateway.commands.audit import ShowAuditOptions, head, show, verify
from gateway.commands.failure import CommandFailed, Exit
from gateway.core.state import AuditEntry
from gateway.state import AuditChain, AuditOptions

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
async def state(tmp_path: Path) -> Path:
    """Return a state directory with three records, a second apart."""
    times = iter([1_700_000_000.0, 1_700_000_001.5, 1_700_000_002.0])
    async with AuditChain(tmp_path / "audit", AuditOptions(wall_s=lambda: next(times))) as chain:
        for what, rollout in (("advance", "fraud"), ("abort\x1b[2J", "spam"), ("approve", "fraud")):
            detail = {"step": 2} if what == "approve" else {}
            await chain.append(
                AuditEntry(kind="transition", what=what, who="controller", rollout=rollout, detail=detail)
            )
    return tmp_path


def test_a_sound_chain_is_said_to_be(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The state directory and the chain's own are both understood, and the head given is found."""
    head(state)
    printed = capsys.readouterr().out.strip()
    verify(state)
    verify(state / "audit", printed)
    said = capsys.readouterr().out
    assert said.count(f"3 records in 1 file, sound; head {printed}\n") == 2


def test_a_fault_fails_with_its_place(state: Path) -> None:
    """The message names file, line and kind, and how far the chain is sound."""
    path = next(state.glob("audit/*.jsonl"))
    path.write_bytes(path.read_bytes().replace(b"approve", b"refuse_"))
    with pytest.raises(
        CommandFailed, match=r"\.jsonl:3: altered: record 3 is .*; sound up to record 2"
    ) as info:
        verify(state)
    assert info.value.code is Exit.FAILED
    with pytest.raises(CommandFailed, match=r"\.jsonl:3"):
        head(state)


def test_a_cut_is_shown_by_a_head(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Records cut off the end are missed by who has kept the head."""
    head(state)
    kept = capsys.readouterr().out
    path = next(state.glob("audit/*.jsonl"))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    verify(state)
    with pytest.raises(CommandFailed, match="cut off: the chain ends with record 2; record 3"):
        verify(state, kept)


@pytest.mark.parametrize("given", ["3", "x:y", "3:" + "g" * 64])
def test_what_is_no_head_is_refused(given: str, state: Path) -> None:
    """A head that was copied badly is a wrong command line, not a fault of the chain."""
    with pytest.raises(CommandFailed, match="is no head") as info:
        verify(state, given)
    assert info.value.code is Exit.USAGE


def test_no_chain_is_not_a_sound_one(tmp_path: Path) -> None:
    """A directory without a chain, or none at all, cannot be looked at."""
    for directory in (tmp_path, tmp_path / "none"):
        with pytest.raises(CommandFailed) as info:
            verify(directory)
        assert info.value.code is Exit.USAGE


def test_records_are_shown_by_rollout_and_time(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, in UTC; what would upset a terminal is spelled out."""
    show(ShowAuditOptions(state))
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first == "     1  2023-11-14 22:13:20.000Z  fraud  transition  advance  by controller"
    assert r"abort\x1b[2J" in second
    show(ShowAuditOptions(state, rollout="fraud", since="2023-11-14T22:13:21", as_json=True))
    (only,) = capsys.readouterr().out.splitlines()
    assert (json.loads(only)["seq"], json.loads(only)["entry"]["detail"]) == (3, {"step": 2})
    show(ShowAuditOptions(state, since="24h"))
    assert capsys.readouterr().out == ""


def test_what_is_no_time_is_refused(state: Path) -> None:
    """The message shows what can be given."""
    with pytest.raises(CommandFailed, match="'yesterday' is no time: give 90m"):
        show(ShowAuditOptions(state, since="yesterday"))
