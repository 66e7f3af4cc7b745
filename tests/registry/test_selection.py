"""The choice of versions: a table of what each selector means, and properties that hold for every answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.options import VersionPolicy
from gateway.core.registry import RegisteredModel, RegistryVersion
from gateway.registry.labels import number_of
from gateway.registry.reference import Selector, SelectorKind
from gateway.registry.selection import Hold, Selection, select, served
from tests.registry.fakes import registered, version

LATEST_ONE = VersionPolicy()
POLICY = Selector()
LATEST = Selector(SelectorKind.LATEST)
ALL = Selector(SelectorKind.ALL)


def alias(name: str) -> Selector:
    return Selector(SelectorKind.ALIAS, name)


def exact(label: str) -> Selector:
    return Selector(SelectorKind.LABEL, label)


def prefix(text: str) -> Selector:
    return Selector(SelectorKind.PREFIX, text)


MODEL = registered(
    *("1", "2", "10"),
    aliases={"champion": "2", "lost": "7", "odd": "no label", "new": "11"},
    unusable={"11": "why"},
)
SEMVER = registered(
    *("1.3.9", "1.4", "1.10.0", "v2.0.0"),
    aliases={"stable": "1.4.0", "next": "2.0"},
    unusable={"3.0.0": "no model"},
)
PENDING = registered(unusable={"1": "pending"})
MIXED = registered("1", "7", "1.0.1")
EMPTY = registered()


@pytest.mark.parametrize(
    ("model", "selector", "policy", "labels"),
    [
        (MODEL, alias("champion"), LATEST_ONE, ["2"]),
        (MODEL, exact("10"), LATEST_ONE, ["10"]),
        (MODEL, exact("v2"), LATEST_ONE, ["2"]),
        (MODEL, LATEST, VersionPolicy(all=True), ["10"]),
        (MODEL, ALL, LATEST_ONE, ["1", "2", "10"]),
        (MODEL, POLICY, LATEST_ONE, ["10"]),
        (MODEL, POLICY, VersionPolicy(latest=2), ["2", "10"]),
        (MODEL, POLICY, VersionPolicy(latest=9), ["1", "2", "10"]),
        (MODEL, POLICY, VersionPolicy(all=True), ["1", "2", "10"]),
        (MODEL, POLICY, VersionPolicy(specific=(10, 1)), ["1", "10"]),
        (MODEL, POLICY, VersionPolicy(specific=(9,), all=True), ["1", "2", "10"]),
        (SEMVER, alias("stable"), LATEST_ONE, ["1.4"]),
        (SEMVER, alias("next"), LATEST_ONE, ["v2.0.0"]),
        (SEMVER, exact("v1.4.0"), LATEST_ONE, ["1.4"]),
        (SEMVER, prefix("1.x"), LATEST_ONE, ["1.10.0"]),
        (SEMVER, prefix("1.3.x"), LATEST_ONE, ["1.3.9"]),
        (SEMVER, prefix("v2.x"), LATEST_ONE, ["v2.0.0"]),
        (SEMVER, LATEST, LATEST_ONE, ["v2.0.0"]),
        (MIXED, LATEST, LATEST_ONE, ["1.0.1"]),
        (MIXED, prefix("1.x"), LATEST_ONE, ["1.0.1"]),
        (MIXED, exact("1"), LATEST_ONE, ["1"]),
    ],
)
def test_chosen(model: RegisteredModel, selector: Selector, policy: VersionPolicy, labels: list[str]) -> None:
    """What is asked for is there: those versions, and no problem."""
    selection = select(model, selector, policy)
    assert [v.label for v in selection.versions] == labels
    assert selection == Selection(selection.versions)


GONE, HELD = Hold.MISSING, Hold.UNUSABLE


@pytest.mark.parametrize(
    ("model", "selector", "hold", "says"),
    [
        (MODEL, alias("x"), GONE, "'fraud' has no alias 'x' (there are: champion, lost, new, odd)"),
        (EMPTY, alias("x"), GONE, "'fraud' has no alias 'x' (there are: none)"),
        (MODEL, alias("lost"), GONE, "alias 'lost' names version '7', which 'fraud' does not have"),
        (MODEL, alias("odd"), GONE, "alias 'odd' names version 'no label', which 'fraud' does not have"),
        (MODEL, alias("new"), HELD, "alias 'new' names version '11' of 'fraud', which cannot be served: w"),
        (MODEL, exact("3"), GONE, "version '3', which 'fraud' does not have (there are: 1, 2, 10)"),
        (MODEL, exact("11"), HELD, "version '11' of 'fraud', which cannot be served: why"),
        (SEMVER, exact("3.0"), HELD, "version '3.0' of 'fraud', which cannot be served: no model"),
        (SEMVER, prefix("4.x"), GONE, "'fraud' has no version '4.x' (there are: 1.3.9, 1.4, 1.10.0, v2"),
        (SEMVER, prefix("3.x"), HELD, "'fraud' has no version '3.x' that can be served ('3.0.0': no mo"),
        (EMPTY, LATEST, GONE, "'fraud' has no version"),
        (EMPTY, ALL, GONE, "'fraud' has no version"),
        (EMPTY, POLICY, GONE, "'fraud' has no version"),
        (PENDING, POLICY, HELD, "'fraud' has no version that can be served ('1': pending)"),
    ],
)
def test_not_there(model: RegisteredModel, selector: Selector, hold: Hold, says: str) -> None:
    """What is asked for is not there: nothing is chosen, the reason is said, and what may stay."""
    selection = select(model, selector, LATEST_ONE)
    assert selection.versions == ()
    assert selection.hold is hold
    assert selection.numbers is None
    assert selection.problem.startswith(says)


def test_some_of_several_numbers_are_not_there() -> None:
    """Those that are there are chosen; only the others may be filled by what was served before."""
    before = [version("2"), version("3"), version("4")]
    selection = select(MODEL, POLICY, VersionPolicy(specific=(2, 3)), before)
    assert [v.label for v in selection.versions] == ["2"]
    assert (selection.hold, selection.numbers) == (Hold.MISSING, frozenset({3}))
    assert [v.label for v in served(selection, before, unload_missing=False)] == ["2", "3"]
    assert [v.label for v in served(selection, before, unload_missing=True)] == ["2"]
    pending = select(MODEL, POLICY, VersionPolicy(specific=(2, 11)), before)
    assert (pending.hold, pending.numbers) == (Hold.UNUSABLE, frozenset({11}))
    assert "11 (why)" in pending.problem


@pytest.mark.parametrize("selector", [alias("champion"), exact("2"), LATEST, ALL, POLICY])
def test_a_version_that_is_written_again_stays_as_it_was(selector: Selector) -> None:
    """A registry calls it unusable for that while; whoever serves it goes on with the files they have."""
    before = [version("2", "old")]
    model = registered(aliases={"champion": "2"}, unusable={"2": "being written"})
    selection = select(model, selector, LATEST_ONE, before)
    assert selection == Selection((before[0],))
    assert select(model, selector, LATEST_ONE).versions == ()


def test_other_files_under_one_label_are_another_version() -> None:
    """The registry's revision counts, not the one served before."""
    assert select(MODEL, exact("2"), LATEST_ONE, [version("2", "old")]).versions == (version("2"),)


def test_two_labels_of_one_number_are_one_version() -> None:
    """Numbers do not repeat: the first label has it, unless the other is asked for by name."""
    model = RegisteredModel(name="fraud", versions=(version("1.4"), version("1.4.0")))
    assert select(model, ALL, LATEST_ONE).versions == (version("1.4"),)


def test_messages_are_bounded() -> None:
    """However much a registry says, a message stays short enough for an index."""
    many = registered(*(str(n) for n in range(1, 5000)), aliases={f"a{n}" * 100: "1" for n in range(5000)})
    unusable = registered(unusable={str(n): "x" * 10_000 for n in range(1, 5000)})
    long = registered(aliases={"champion": "x" * 100_000})
    for model, selector in (
        (many, alias("z")),
        (many, exact("9999")),
        (unusable, LATEST),
        (long, alias("champion")),
    ):
        assert len(select(model, selector, LATEST_ONE).problem) < 5000
    assert len(select(unusable, exact("7"), LATEST_ONE).problem) < 5000


LABELS = st.sampled_from(["1", "2", "3", "4", "v5", "1.0", "1.1", "1.1.0", "1.2.3", "2.0", "v2.1.0"])
MODELS = st.builds(
    lambda usable, unusable, aliases: registered(
        *usable, unusable=dict.fromkeys(unusable - usable, "why"), aliases=aliases
    ),
    st.sets(LABELS),
    st.sets(LABELS),
    st.dictionaries(st.sampled_from(["champion", "other"]), LABELS | st.just("nonsense")),
)
SELECTORS = st.one_of(
    st.builds(alias, st.sampled_from(["champion", "other", "none"])),
    st.builds(exact, LABELS),
    st.builds(prefix, st.sampled_from(["1.x", "1.1.x", "9.x"])),
    st.sampled_from([LATEST, ALL, POLICY]),
)
POLICIES = st.one_of(
    st.builds(lambda n: VersionPolicy(latest=n), st.integers(1, 4)),
    st.builds(lambda n: VersionPolicy(specific=tuple(n)), st.sets(st.integers(1, 6), min_size=1)),
    st.just(VersionPolicy(all=True)),
)
BEFORE = st.lists(st.builds(version, LABELS, st.sampled_from(["r0", "r1"])), unique_by=lambda v: v.number)


@given(MODELS, SELECTORS, POLICIES, BEFORE)
def test_every_choice(
    model: RegisteredModel, selector: Selector, policy: VersionPolicy, before: list[RegistryVersion]
) -> None:
    """Numbers ascend, nothing is made up, a gap is always said, and choosing again chooses the same."""
    selection = select(model, selector, policy, before)
    numbers = [v.number for v in selection.versions]
    assert numbers == sorted(set(numbers))
    standing = [v for v in before if v.label in model.unusable]
    assert all(v in model.versions or v in standing for v in selection.versions)
    assert bool(selection.problem) == (selection.hold is not Hold.NONE)
    assert selection.versions or selection.problem
    assert select(model, selector, policy, selection.versions or before) == selection


@given(MODELS, SELECTORS, POLICIES, BEFORE, st.booleans())
def test_everything_served(
    model: RegisteredModel,
    selector: Selector,
    policy: VersionPolicy,
    before: list[RegistryVersion],
    unload_missing: bool,
) -> None:
    """What was served goes only for something else that was asked for, or by the policy `unload`."""
    selection = select(model, selector, policy, before)
    now = served(selection, before, unload_missing=unload_missing)
    assert [v.number for v in now] == sorted({v.number for v in now})
    assert all(v in now for v in selection.versions)
    assert all(v in selection.versions or v in before for v in now)
    if before and not now:
        assert unload_missing
        assert selection.hold is Hold.MISSING
    if selection.hold is Hold.NONE or (selection.hold is Hold.MISSING and unload_missing):
        assert now == selection.versions


@given(MODELS, st.sampled_from(["champion", "other"]))
def test_an_alias_means_what_its_label_means(model: RegisteredModel, name: str) -> None:
    """Naming the label instead chooses the same."""
    label = model.aliases.get(name)
    if label is not None and number_of(label) is not None:
        by_alias, by_label = select(model, alias(name), LATEST_ONE), select(model, exact(label), LATEST_ONE)
        assert (by_alias.versions, by_alias.hold) == (by_label.versions, by_label.hold)
