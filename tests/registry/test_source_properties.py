"""Whatever a registry goes through, what is served changes only as it says, and comes to what it says."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.options import VersionPolicy
from gateway.core.registry import RegistryError, RegistryVersion
from gateway.models.desired import DesiredVersion
from gateway.registry.following import MissingPolicy
from gateway.registry.polling import PollOptions
from gateway.registry.provider import CachedProvider
from gateway.registry.selection import Hold, Selection, select, served
from tests.properties import examples
from tests.registry.fakes import Rig, sourced

POLL = PollOptions(interval_s=4.0, max_backoff_s=16.0, timeout_s=3.0, start_timeout_s=2.0)
LABELS = st.sampled_from(["1", "2", "3", "1.2.0"])
ACTIONS = st.one_of(
    st.tuples(st.just("publish"), LABELS),
    st.tuples(st.just("alias"), LABELS | st.none() | st.just("99")),
    st.tuples(st.just("delete"), LABELS),
    st.tuples(st.just("break"), LABELS),
    st.tuples(st.just("delete_model"), st.none()),
    st.tuples(st.just("down"), st.booleans()),
    st.tuples(st.just("hang"), st.booleans()),
    st.tuples(st.just("nonsense"), st.booleans()),
    st.tuples(st.just("config"), st.sampled_from([b"max_batch_size: 4", b"no config", None])),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("hint"), st.none()),
    st.tuples(st.just("pass"), st.sampled_from([1.0, 5.0, 30.0])),
)
SELECTORS = st.sampled_from(["@champion", "@2", "@latest", "@all", "@1.x", ""])


def resolved(wanted: list[DesiredVersion]) -> list[RegistryVersion]:
    """Return the registry's versions behind those wanted."""
    assert all(isinstance(v.provider, CachedProvider) for v in wanted)
    return [v.provider._wanted.version for v in wanted if isinstance(v.provider, CachedProvider)]


def answers(rig: Rig) -> bool:
    """Whether a look can get an answer now."""
    registry = rig.registry
    stored = registry._stored.get("fraud")
    config = stored.files.get("config.pbtxt") if stored is not None else None
    readable = config is None or config.content != b"no config"
    return readable and not (registry.down or registry.hanging or registry.raising)


def says(rig: Rig, before: list[RegistryVersion]) -> Selection:
    """Return what the registry leads to, were it asked now."""
    model = rig.models[0]
    if "fraud" not in rig.registry._stored:
        return Selection((), "no such model", Hold.MISSING)
    return select(rig.registry.now(), model.reference.selector, VersionPolicy(), before)


async def act(rig: Rig, action: str, value: object) -> None:
    """Do one thing to the registry or the gateway."""
    match action, value:
        case "restart", _:
            await rig.start()
        case "hint", _:
            rig.source.hint()
        case "pass", float(seconds):
            await rig.pass_s(seconds)
        case (("down" | "hang" | "nonsense"), bool(on)):
            fault(rig, action, on=on)
        case _:
            change(rig, action, value)


def fault(rig: Rig, action: str, *, on: bool) -> None:
    """Begin or end a fault of the registry."""
    registry = rig.registry
    if action == "down":
        registry.down = on
    elif action == "nonsense":
        registry.raising = RegistryError("resolve", "nonsense", may_pass=True) if on else None
    elif on:
        registry.hanging = {"*"}
    else:
        registry.release()


def change(rig: Rig, action: str, value: object) -> None:
    """Change what the registry holds."""
    registry = rig.registry
    match action, value:
        case "publish", str(label):
            registry.publish(label)
        case "alias", str() | None:
            registry.alias("champion", value)
        case "delete", str(label) if "fraud" in registry._stored:
            registry.delete(label)
        case "break", str(label):
            registry.break_version(label)
        case "delete_model", _:
            registry.delete_model()
        case "config", bytes() | None:
            registry.put_file("config.pbtxt", value)


async def run(policy: MissingPolicy, selector: str, actions: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        rig = Rig(Path(directory), sourced(selector=selector), poll=POLL, on_missing=policy)
        rig.registry.publish("1")
        rig.registry.alias("champion", "1")
        await rig.start()
        for action, value in actions:
            before = resolved(rig.sets[-1])
            answered = answers(rig)
            await act(rig, action, value)
            check_step(rig, policy, before, answered=answered or answers(rig))
        await come_back(rig, policy)
        await rig.stop()


def check_step(rig: Rig, policy: MissingPolicy, before: list[RegistryVersion], *, answered: bool) -> None:
    """What is wanted changed only to what the registry leads to, and went only as the policy has it."""
    now = resolved(rig.sets[-1])
    if now == before:
        return
    assert answered, "a version changed although the registry gave no answer"
    selection = says(rig, before)
    if selection.hold is Hold.MISSING and policy is MissingPolicy.UNLOAD:
        assert now == list(selection.versions)
    else:
        assert now == list(served(selection, before, unload_missing=False))
    if before and not now:
        assert policy is MissingPolicy.UNLOAD
        assert selection.hold is Hold.MISSING


async def come_back(rig: Rig, policy: MissingPolicy) -> None:
    """The registry is up for long enough: what is wanted is what it says."""
    registry = rig.registry
    registry.down, registry.raising = False, None
    registry.release()
    if "fraud" in registry._stored:
        registry.put_file("config.pbtxt", None)
    before = resolved(rig.sets[-1])
    await rig.pass_s(2 * POLL.max_backoff_s)
    selection = says(rig, before)
    unload = policy is MissingPolicy.UNLOAD
    assert resolved(rig.sets[-1]) == list(served(selection, before, unload_missing=unload))
    problems = rig.source.problems()
    assert bool(problems) == (selection.hold is not Hold.NONE)


@settings(max_examples=examples(60))
@given(st.sampled_from(MissingPolicy), SELECTORS, st.lists(ACTIONS, max_size=25))
def test_only_the_registry_withdraws(
    policy: MissingPolicy, selector: str, actions: list[tuple[str, object]]
) -> None:
    """No fault, no restart and no order of the two ever withdraws a version; once up, it is followed."""
    asyncio.run(run(policy, selector, actions))
