"""What serves after a restart while the version that is wanted cannot: the one that served before."""

from pathlib import Path

import pytest

from gateway.core.types import VersionState, VersionStatus
from gateway.models.desired import DesiredVersion
from gateway.registry.following import MissingPolicy
from gateway.testing import settle
from tests.registry.fakes import POLL, TURNS, Rig, published

INTERVAL_S = POLL.interval_s


async def tell(rig: Rig, wanted: DesiredVersion, state: VersionState = VersionState.READY) -> None:
    """Let the manager tell of a version."""
    digest = str(wanted.id.number) * 64 if state is VersionState.READY else ""
    rig.source.on_transition(VersionStatus(id=wanted.id, state=state, content_digest=digest))
    await settle(TURNS)


def labels(offered: list[DesiredVersion]) -> list[str]:
    return [version.origin.label for version in offered if version.origin is not None]


async def killed_before_ready(rig: Rig, *, moved_while_away: bool = False) -> Rig:
    """Serve version 1, have version 2 wanted, and go before that was READY."""
    published(rig)
    (first,) = await rig.start()
    await tell(rig, first)
    await rig.pass_s(INTERVAL_S)
    if moved_while_away:
        await rig.stop()
    rig.registry.alias("champion", "2")
    if not moved_while_away:
        await rig.pass_s(INTERVAL_S)
        assert rig.labels == ["2"]
    return rig


@pytest.mark.parametrize("keep_previous", [0, 2])
@pytest.mark.parametrize("down", [False, True])
async def test_what_served_before_comes_first(tmp_path: Path, down: bool, keep_previous: int) -> None:
    """It serves again, then the new version may come, and when that is READY the other goes."""
    rig = await killed_before_ready(Rig(tmp_path, keep_previous=keep_previous))
    rig.registry.down = down
    (before,) = await rig.start()
    assert labels([before]) == ["1"]
    await rig.pass_s(3 * INTERVAL_S)
    assert rig.labels == ["1"]
    await tell(rig, before)
    assert rig.labels == ["1", "2"]
    await tell(rig, rig.sets[-1][1], VersionState.FAILED)
    await rig.pass_s(3 * INTERVAL_S)
    assert rig.labels == ["1", "2"]
    await tell(rig, rig.sets[-1][1])
    assert rig.labels == ["2"]
    assert ("1" * 64 in rig.source.keep_digests()) == bool(keep_previous)
    await rig.pass_s(2 * POLL.max_backoff_s)
    await rig.start()
    assert rig.labels == ["2"]
    await rig.stop()


async def test_an_alias_that_moved_while_nobody_looked(tmp_path: Path) -> None:
    """It is no reason either to serve nothing until the new version can."""
    rig = await killed_before_ready(Rig(tmp_path), moved_while_away=True)
    assert labels(await rig.start()) == ["1"]
    rig.registry.alias("champion", "1")
    await rig.pass_s(INTERVAL_S)
    assert rig.labels == ["1"]
    await rig.stop()


async def test_what_served_before_cannot_serve(tmp_path: Path) -> None:
    """The version that is wanted has its turn, beside it: what it failed by may pass."""
    rig = await killed_before_ready(Rig(tmp_path))
    (before,) = await rig.start()
    await tell(rig, before, VersionState.FAILED)
    assert rig.labels == ["1", "2"]
    await tell(rig, before)
    assert rig.labels == ["1", "2"]
    await tell(rig, before, VersionState.FAILED)
    await tell(rig, rig.sets[-1][1])
    assert rig.labels == ["2"]
    await rig.stop()


async def test_a_version_wanted_later_has_the_same_rights(tmp_path: Path) -> None:
    """What stands in goes for whichever is READY first; then it is as if there had been no restart."""
    rig = await killed_before_ready(Rig(tmp_path))
    (before,) = await rig.start()
    await tell(rig, before)
    rig.registry.publish("3")
    rig.registry.alias("champion", "3")
    await rig.pass_s(INTERVAL_S)
    assert rig.labels == ["1", "3"]
    await tell(rig, rig.sets[-1][1])
    assert rig.labels == ["3"]
    rig.registry.alias("champion", "2")
    await rig.pass_s(INTERVAL_S)
    assert rig.labels == ["2"]
    await rig.stop()


async def test_what_nobody_wants_stands_in_for_nothing(tmp_path: Path) -> None:
    """An alias that is gone for good takes with it, under `unload`, what stood in."""
    rig = await killed_before_ready(Rig(tmp_path, on_missing=MissingPolicy.UNLOAD))
    (before,) = await rig.start()
    await tell(rig, before)
    rig.registry.alias("champion", None)
    await rig.pass_s(3 * INTERVAL_S)
    assert rig.sets[-1] == []
    await rig.stop()


async def test_other_files_under_the_same_label(tmp_path: Path) -> None:
    """Of one number only one version can be wanted: the new one."""
    rig = published(Rig(tmp_path))
    (first,) = await rig.start()
    await tell(rig, first)
    rig.registry.publish("1")
    await rig.pass_s(INTERVAL_S)
    (again,) = await rig.start()
    assert again.id != first.id
    await rig.stop()
