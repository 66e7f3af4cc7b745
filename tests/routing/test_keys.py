"""Where keys come from, and who may choose an arm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.rollout import HeaderOverride, KeyKind, KeySource
from gateway.core.types import ParameterValue, Principal
from gateway.routing.keys import KeyReader, Overrides, random_units
from tests.routing.stage import ask

HEADER = KeySource(KeyKind.HEADER, "x-user-id")
SUBJECT = KeySource(KeyKind.JWT, "sub")
PARAMETER = KeySource(KeyKind.PARAMETER, "customer")
REQUEST_ID = KeySource(KeyKind.REQUEST_ID)


def test_the_first_source_that_is_present_wins() -> None:
    """An empty value is no value."""
    reader = KeyReader([HEADER, PARAMETER, REQUEST_ID])
    assert (
        reader.key(ask(headers={"x-user-id": "ann"}, parameters={"customer": "bob"}, request_id="7"))
        == b"ann"
    )
    assert reader.key(ask(headers={"x-user-id": ""}, parameters={"customer": "bob"})) == b"bob"
    assert reader.key(ask(request_id="7")) == b"7"
    assert reader.key(ask()) is None


@pytest.mark.parametrize(
    ("value", "key"),
    [(7, b"7"), (-7, b"-7"), (True, b"true"), (False, b"false"), (1.5, b"1.5"), ("7", b"7"), (0, b"0")],
)
def test_a_parameter_is_its_text(value: ParameterValue, key: bytes) -> None:
    """An integer and its decimal text are the same key, as they are over JSON and protobuf."""
    assert KeyReader([PARAMETER]).key(ask(parameters={"customer": value})) == key


def test_a_claim_is_the_principals_never_the_tokens() -> None:
    """A bearer token that nobody has verified decides nothing; there is no claim but the subject."""
    token = {"authorization": "Bearer e30.eyJzdWIiOiJhbm4ifQ."}
    assert KeyReader([SUBJECT]).key(ask(headers=token)) is None
    assert KeyReader([SUBJECT]).key(ask(principal=Principal(identity="ann"))) == b"ann"
    assert KeyReader([KeySource(KeyKind.JWT, "email")]).key(ask(principal=Principal(identity="ann"))) is None


@given(st.text(min_size=1))
def test_a_text_is_its_utf_8(text: str) -> None:
    """Whatever a client sends as text is a key, lone surrogates too."""
    assert KeyReader([HEADER]).key(ask(headers={"x-user-id": text})) == text.encode("utf-8", "surrogatepass")


def test_a_caller_may_choose_an_arm() -> None:
    """The first override that applies wins; the place of the arm in the list is given."""
    overrides = Overrides(
        [
            HeaderOverride("x-arm", frozenset({"canary"}), "arms"),
            HeaderOverride("x-arm", frozenset({"stable"})),
        ],
        ["stable", "canary"],
    )
    allowed = Principal(scopes=frozenset({"arms"}))
    assert overrides.chosen(ask()) == -1
    assert overrides.chosen(ask(headers={"x-arm": "stable"})) == 0
    assert overrides.chosen(ask(headers={"x-arm": "canary"}, principal=allowed)) == 1
    assert overrides.refused == 0


@pytest.mark.parametrize("arm", ["canary", "shadow", "gone"])
def test_a_choice_that_may_not_be_made_is_ignored_and_counted(arm: str) -> None:
    """Without the scope, not among those allowed, or no arm at all: the request is assigned as any other."""
    choices = [HeaderOverride("x-arm", frozenset({"canary", "gone"}), "arms")]
    overrides = Overrides(choices, ["stable", "canary", "shadow"])
    scopes = frozenset({"arms"}) if arm != "canary" else frozenset[str]()
    assert overrides.chosen(ask(headers={"x-arm": arm}, principal=Principal(scopes=scopes))) == -1
    assert overrides.refused == 1


def test_units_at_random_differ_between_processes() -> None:
    """They come from the system's entropy unless a seed is given."""
    assert [random_units()() for _ in range(3)] != [random_units()() for _ in range(3)]
    unit = random_units(1)
    assert len({unit() for _ in range(100)}) == 100
    assert all(0 <= unit() < 2**64 for _ in range(100))
