"""The source over a registry that is down, slow or lying, in virtual time."""

import asyncio
import logging
from pathlib import Path

import pytest

from gateway.core.options import ModelSpec
from gateway.core.registry import RegistryError
from gateway.registry.following import MissingPolicy, PollOutcome, ResolutionStatus
from gateway.registry.polling import PollOptions
from gateway.registry.provider import CachedProvider
from gateway.testing import settle
from tests.registry.fakes import TURNS, Rig, published, sourced

INTERVAL_S = PollOptions().interval_s
CAP_S = PollOptions().max_backoff_s


async def test_a_version_is_offered_with_where_it_comes_from(tmp_path: Path) -> None:
    """Number, label, aliases, provider and settings; the files are not here yet."""
    rig = published(Rig(tmp_path, sourced(lazy=True, allow_breaking=True)))
    rig.registry.alias("stable", "1")
    (wanted,) = await rig.start()
    assert wanted.id[:2] == ("fraud", 1)
    assert isinstance(wanted.provider, CachedProvider)
    assert wanted.artifact.directory == Path()
    assert wanted.spec == ModelSpec(name="fraud", lazy=True, allow_breaking=True)
    assert wanted.origin is not None
    assert (wanted.origin.registry, wanted.origin.source) == ("prod", "s3://bucket/fraud@champion")
    assert (wanted.origin.label, wanted.origin.aliases) == ("1", ("champion", "stable"))
    assert await rig.source.models() == ["fraud"]
    assert rig.source.problems() == {}
    status = rig.status()
    assert (status.status, status.labels, status.last_ok_s) == (ResolutionStatus.OK, ("1",), rig.wall())
    await rig.stop()


async def test_an_alias_that_moves_is_followed_within_one_poll(tmp_path: Path) -> None:
    """The next look offers the new version; looks that find nothing new give no set."""
    rig = published(Rig(tmp_path))
    await rig.start()
    await rig.pass_s(5 * INTERVAL_S)
    assert len(rig.sets) == 2
    rig.registry.alias("champion", "2")
    await rig.pass_s(INTERVAL_S)
    assert rig.labels == ["2"]
    assert len(rig.sets) == 3
    assert rig.polls[-1] in {("fraud", PollOutcome.CHANGED), ("fraud", PollOutcome.UNCHANGED)}
    await rig.stop()


async def test_an_alias_that_leaves_and_comes_back_is_the_same_version(tmp_path: Path) -> None:
    """Identity depends on registry, model, label, revision and settings, not on aliases or lineage."""
    rig = published(Rig(tmp_path))
    (first,) = await rig.start()
    rig.registry.alias("other", "1")
    await rig.pass_s(INTERVAL_S)
    (again,) = rig.sets[-1]
    assert again.id == first.id
    assert again.provider is first.provider
    assert again.origin is not None
    assert again.origin.aliases == ("champion", "other")
    rig.registry.publish("1")
    await rig.pass_s(INTERVAL_S)
    (other,) = rig.sets[-1]
    assert other.id[:2] == first.id[:2]
    assert other.id.digest != first.id.digest
    await rig.stop()


@pytest.mark.parametrize("gone", ["alias", "version", "model", "all versions"])
@pytest.mark.parametrize("policy", list(MissingPolicy))
async def test_what_is_no_longer_named(tmp_path: Path, policy: MissingPolicy, gone: str) -> None:
    """`keep` serves on and says so, over a restart too; `unload` withdraws what was denied twice."""
    rig = published(Rig(tmp_path, on_missing=policy))
    await rig.start()
    match gone:
        case "alias":
            rig.registry.alias("champion", None)
        case "version":
            rig.registry.delete("1")
        case "model":
            rig.registry.delete_model()
        case _:
            rig.registry.delete("1")
            rig.registry.delete("2")
    rig.source.hint()
    await rig.pass_s(1)
    assert rig.labels == ["1"]
    status = rig.status()
    assert status.status is ResolutionStatus.MISSING
    await rig.pass_s(2 * INTERVAL_S)
    kept = ["1"] if policy is MissingPolicy.KEEP else []
    assert rig.labels == kept
    assert rig.source.problems()["fraud"].startswith("resolve: ")
    assert ("serving '1' as before" in rig.status().message) == bool(kept)
    for down in (False, True):
        rig.registry.down = down
        await rig.start()
        await rig.pass_s(2 * INTERVAL_S)
        assert rig.labels == kept
    await rig.stop()


async def test_between_deleting_an_alias_and_setting_it_nothing_is_withdrawn(tmp_path: Path) -> None:
    """An alias moved in two steps is not there for a moment; the second look comes soon."""
    rig = published(Rig(tmp_path, on_missing=MissingPolicy.UNLOAD))
    await rig.start()
    rig.registry.alias("champion", None)
    rig.source.hint("fraud")
    await rig.pass_s(1)
    assert rig.labels == ["1"]
    assert "serving '1' until the registry says so again" in rig.status().message
    rig.registry.alias("champion", "2")
    await rig.pass_s(1)
    assert rig.labels == ["2"]
    assert all(s for s in rig.sets)
    await rig.stop()


@pytest.mark.parametrize("policy", list(MissingPolicy))
async def test_an_alias_on_a_version_that_cannot_be_served_yet(tmp_path: Path, policy: MissingPolicy) -> None:
    """The old one stays under either policy, until the new one can be served."""
    rig = published(Rig(tmp_path, on_missing=policy))
    await rig.start()
    rig.registry.break_version("3", "its files are still being written")
    rig.registry.alias("champion", "3")
    await rig.pass_s(3 * INTERVAL_S)
    assert rig.labels == ["1"]
    assert "cannot be served: its files are still being written; serving '1'" in rig.status().message
    rig.registry.publish("3")
    await rig.pass_s(INTERVAL_S)
    assert rig.labels == ["3"]
    assert rig.source.problems() == {}
    await rig.stop()


async def test_a_registry_that_is_down_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What it said stands; people are told since when, once; it is asked less and less often."""
    rig = published(Rig(tmp_path, on_missing=MissingPolicy.UNLOAD))
    await rig.start()
    last_ok_s = rig.wall()
    rig.registry.down = True
    asked = len(rig.registry.asked)
    await rig.pass_s(INTERVAL_S)
    since_s = rig.status().since_s
    await rig.pass_s(1800 - INTERVAL_S)
    assert rig.labels == ["1"]
    status = rig.status()
    assert (status.status, status.last_ok_s) == (ResolutionStatus.STALE, last_ok_s)
    assert status.since_s == since_s
    assert "registry 'prod' refuses connections; serving what registry 'prod' said at 20" in status.message
    assert caplog.text.count("refuses connections") == 1
    assert 1800 / CAP_S - 2 <= len(rig.registry.asked) - asked <= 1800 / CAP_S + 4
    rig.registry.alias("champion", "2")
    rig.registry.down = False
    with caplog.at_level(logging.INFO):
        await rig.pass_s(CAP_S)
    assert rig.labels == ["2"]
    assert "model 'fraud': registry 'prod' is followed" in caplog.text
    await rig.stop()


async def test_a_restart_without_the_registry_serves_what_was_served(tmp_path: Path) -> None:
    """The very same version, so that its files are found in the cache; since when it is stale is known."""
    rig = published(Rig(tmp_path))
    (first,) = await rig.start()
    last_ok_s = rig.wall()
    await rig.pass_s(1)
    rig.registry.down = True
    (again,) = await rig.start()
    assert again.id == first.id
    assert isinstance(first.provider, CachedProvider)
    assert isinstance(again.provider, CachedProvider)
    assert again.provider._wanted.version == first.provider._wanted.version
    status = rig.status()
    assert (status.status, status.last_ok_s) == (ResolutionStatus.STALE, last_ok_s)
    rig.registry.down = False
    rig.registry.alias("champion", "2")
    await rig.pass_s(CAP_S)
    assert rig.labels == ["2"]
    await rig.stop()


async def test_how_old_a_resolution_is_stays_known_over_a_restart(tmp_path: Path) -> None:
    """What does not change is written again every few minutes."""
    rig = published(Rig(tmp_path, save_interval_s=60.0))
    await rig.start()
    began_s = rig.wall()
    await rig.pass_s(200)
    rig.registry.down = True
    await rig.start()
    last_ok_s = rig.status().last_ok_s
    assert last_ok_s is not None
    assert last_ok_s >= began_s + 200 - 60 - 2 * INTERVAL_S
    await rig.stop()


async def test_another_reference_starts_without_what_the_first_one_led_to(tmp_path: Path) -> None:
    """What is kept belongs to the reference: nobody asked for that version under this one."""
    rig = published(Rig(tmp_path))
    await rig.start()
    rig.registry.down = True
    rig.models = (sourced(selector="@other"),)
    assert await rig.start() == []
    await rig.stop()


async def test_a_start_without_registry_or_past_names_the_model_and_why(tmp_path: Path) -> None:
    """It is asked again soon, and served as soon as the registry answers."""
    rig = published(Rig(tmp_path))
    rig.registry.down = True
    assert await rig.start() == []
    assert await rig.source.models() == ["fraud"]
    assert rig.source.problems() == {"fraud": "resolve: registry 'prod' refuses connections"}
    assert rig.status().status is ResolutionStatus.ERROR
    assert rig.status().last_ok_s is None
    rig.registry.down = False
    await rig.pass_s(2 * INTERVAL_S)
    assert rig.labels == ["1"]
    await rig.stop()


@pytest.mark.parametrize(
    "error", [ValueError("surprise"), KeyError("x"), asyncio.CancelledError(), MemoryError()]
)
async def test_whatever_a_client_library_raises_is_a_fault_of_the_registry(
    tmp_path: Path, error: BaseException
) -> None:
    """The model is served on and asked for again; the surprise is in no message that clients see."""
    rig = published(Rig(tmp_path))
    await rig.start()
    rig.registry.raising = error  # type: ignore[assignment]  # one of them is no Exception
    await rig.pass_s(5 * INTERVAL_S)
    assert rig.labels == ["1"]
    assert rig.status().status is ResolutionStatus.STALE
    assert "surprise" not in rig.status().message
    rig.registry.raising = None
    rig.registry.alias("champion", "2")
    await rig.pass_s(CAP_S)
    assert rig.labels == ["2"]
    await rig.stop()


async def test_a_lying_registry_is_told_from_one_that_is_down(tmp_path: Path) -> None:
    """A fault whose answer is nonsense is as good as no answer; the message is the registry's."""
    rig = published(Rig(tmp_path, on_missing=MissingPolicy.UNLOAD))
    await rig.start()
    rig.registry.raising = RegistryError("resolve", "the answer is no JSON", may_pass=True)
    await rig.pass_s(10 * INTERVAL_S)
    assert rig.labels == ["1"]
    assert rig.status().message.startswith(
        "resolve: the answer is no JSON; serving what registry 'prod' said"
    )
    await rig.stop()


async def test_a_fault_confirms_nothing(tmp_path: Path) -> None:
    """Only answers in a row that lack what was asked for withdraw it."""
    rig = published(Rig(tmp_path, on_missing=MissingPolicy.UNLOAD))
    await rig.start()
    rig.registry.alias("champion", None)
    rig.source.hint()
    await rig.pass_s(1)
    rig.registry.down = True
    await rig.pass_s(INTERVAL_S)
    rig.registry.down = False
    rig.source.hint()
    await settle(TURNS)
    assert rig.status().status is ResolutionStatus.MISSING
    assert rig.labels == ["1"]
    await rig.pass_s(1)
    assert rig.labels == []
    await rig.stop()
