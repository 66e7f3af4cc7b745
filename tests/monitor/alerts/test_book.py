"""Who is told what, and when: pure, by a clock of the test's own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson
import pytest
from pydantic import ValidationError

from gateway.config.monitor_alerts import AlertSettings
from gateway.monitor.alerts.book import AlertBook
from tests.monitor.alerts.alarms import T0, alarm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.monitor.alerts.message import Notice
    from gateway.monitor.values import Alarm

HOOK: Final = {"name": "chat", "url": "http://127.0.0.1:9/hook"}


def book(**settings: Any) -> AlertBook:
    """Return a book with one webhook."""
    given = {"group_wait": "10s", "cooldown": "1h", "webhooks": [HOOK], **settings}
    return AlertBook(AlertSettings.model_validate(given))


def told(notices: Sequence[Notice]) -> list[tuple[str, str]]:
    """Return (event, subject) of everything that is said."""
    documents = [orjson.loads(notice.body) for notice in notices]
    return [(alarm["event"], alarm["subject"]) for document in documents for alarm in document["alarms"]]


def test_alarms_of_one_model_are_one_message() -> None:
    """What comes within the group's wait is told together, once, with link and evidence."""
    tested = book()
    first, second = alarm(), alarm("age", at_s=T0 + 5)
    tested.observe([first], T0)
    assert not tested.due(T0)
    tested.observe([first, second], T0 + 5)
    assert not tested.due(T0 + 9)
    (notice,) = tested.due(T0 + 10)
    assert told([notice]) == [("raised", "income"), ("raised", "age")]
    document = orjson.loads(notice.body)
    assert document["alarms"][0]["link"].startswith("http://127.0.0.1:8010/models/car_loan#alarm-")
    assert document["alarms"][0]["evidence"]["tests"][0]["value"] == 0.4
    assert document["total"] == 2
    assert not tested.due(T0 + 100)


def test_one_drift_is_one_page_and_one_word_of_its_end() -> None:
    """What joins within the group's window is not told again; its end is that of the last of them."""
    tested = book(group_wait="0s", group_window="1h")
    signals = [
        alarm(),
        alarm("age", at_s=T0 + 60, psi=0.9),
        alarm("rooms", at_s=T0 + 3600, segment="region=x"),
    ]
    for count, at_s in ((1, T0), (2, T0 + 60), (3, T0 + 3600)):
        tested.observe(signals[:count], at_s)
        assert told(tested.due(at_s)) == ([("raised", "income")] if count == 1 else [])
    ended = [replace(one, cleared_s=T0 + 4000) for one in signals[:2]]
    tested.observe([*ended, signals[2]], T0 + 4000)
    assert tested.due(T0 + 4000) == []
    tested.observe([replace(signals[2], cleared_s=T0 + 9000)], T0 + 9000)  # the others are long forgotten
    (notice,) = tested.due(T0 + 9000)
    assert told([notice]) == [("cleared", "age"), ("cleared", "income"), ("cleared", "rooms")]
    tested.observe([], T0 + 9001)
    assert (tested.groups, tested.told, tested.memberships.members) == ([], {}, {})


def test_the_most_severe_is_said_first() -> None:
    """By how far it is beyond its threshold; pages before tickets, what came first among equals."""
    tested = book(group_wait="0s")
    drifted = [
        alarm("a", psi=0.2),
        alarm("b", psi=5),
        alarm("c", psi=0.2),
        replace(alarm("d", psi=9), severity="ticket"),
    ]
    tested.observe(drifted, T0)
    (notice,) = tested.due(T0)
    assert told([notice]) == [("raised", subject) for subject in "bacd"]
    assert orjson.loads(notice.body)["summary"] == "b drifted (and 3 more)"


def test_a_wide_drift_is_one_page() -> None:
    """Of hundreds of signals the worst are described, the others counted."""
    tested = book(group_wait="0s")
    tested.observe([alarm(f"signal-{i}", psi=i) for i in range(300)], T0)
    (notice,) = tested.due(T0)
    document = orjson.loads(notice.body)
    assert (document["total"], len(document["alarms"])) == (300, 100)
    assert document["alarms"][0]["subject"] == "signal-299"
    assert not tested.due(T0 + 1)


@pytest.mark.parametrize(
    "other",
    [
        alarm("x", at_s=T0 + 3601),
        alarm("x", at_s=T0 + 60, arm="canary"),
        alarm("x", at_s=T0 + 60, kind="quality"),
        replace(alarm("x", at_s=T0 + 60), severity="ticket"),
    ],
)
def test_another_event_is_another_page(other: Alarm) -> None:
    """Later than the window, another arm, another kind, another severity."""
    tested = book(group_wait="0s", group_window="1h")
    tested.observe([alarm()], T0)
    tested.due(T0)
    tested.observe([alarm(), other], other.raised_s)
    assert told(tested.due(other.raised_s)) == [("raised", "x")]


def test_a_new_signal_is_told_though_another_cools() -> None:
    """The cooldown is of subjects: a group is held back while all of its subjects cool."""
    tested = book(group_wait="0s", group_window="1s")
    tested.observe([alarm()], T0)
    tested.due(T0)
    tested.observe([], T0 + 60)
    tested.due(T0 + 60)
    again = alarm(at_s=T0 + 120)
    tested.observe([again], T0 + 120)
    assert not tested.due(T0 + 120)
    tested.observe([again, alarm("age", at_s=T0 + 121)], T0 + 121)
    assert told(tested.due(T0 + 121)) == [("raised", "income"), ("raised", "age")]


def test_models_are_told_apart() -> None:
    """Two models are two messages."""
    tested = book(group_wait="0s")
    tested.observe([alarm(), alarm(model="other")], T0)
    assert len(tested.due(T0)) == 2


def test_the_end_is_told_once() -> None:
    """An alarm that has ended is told to whoever heard of it, also when it is simply missing."""
    tested = book(group_wait="0s")
    tested.observe([alarm(), alarm("age")], T0)
    tested.due(T0)
    tested.observe([replace(alarm(), cleared_s=T0 + 60)], T0 + 60)
    assert sorted(told(tested.due(T0 + 60))) == [("cleared", "age"), ("cleared", "income")]
    assert not tested.due(T0 + 61)


def test_what_ended_before_it_was_told_is_not_told() -> None:
    """A flap within the group's wait wakes nobody."""
    tested = book()
    tested.observe([alarm()], T0)
    tested.due(T0)
    tested.observe([replace(alarm(), cleared_s=T0 + 5)], T0 + 5)
    assert not tested.due(T0 + 60)


def test_a_flapping_subject_is_told_once_per_cooldown() -> None:
    """The second alarm about one thing waits for the cooldown's end, and is told if it still stands."""
    tested = book(group_wait="0s")
    tested.observe([alarm()], T0)
    tested.due(T0)
    tested.observe([replace(alarm(), cleared_s=T0 + 60)], T0 + 60)
    tested.due(T0 + 60)
    again = alarm(at_s=T0 + 120)
    tested.observe([again], T0 + 120)
    assert not tested.due(T0 + 120)
    assert not tested.due(T0 + 3599)
    assert tested.held_back["cooldown"] == 1
    assert told(tested.due(T0 + 3600)) == [("raised", "income")]


def test_a_silence_keeps_quiet_and_what_stands_is_told_afterwards() -> None:
    """A window of one hour from 14:00 UTC; another model is told at once."""
    silence = {"cron": "0 14 * * *", "for": "1h", "models": ["car_loan"]}
    tested = book(group_wait="0s", silences=[silence])
    tested.observe([alarm(), alarm(model="other")], T0)
    assert [orjson.loads(n.body)["model"] for n in tested.due(T0)] == ["other"]
    assert tested.held_back["silence"] == 1
    assert told(tested.due(T0 + 3600)) == [("raised", "income")]


def test_retraining_is_asked_for_once_per_model_with_all_evidence() -> None:
    """Only alarms that ask for it and have stood long enough; tickets and pipelines do not."""
    tested = book(
        webhooks=[], group_wait="0s", retraining={"url": "http://127.0.0.1:9/train", "stands": "5m"}
    )
    standing = [alarm(), alarm("age"), alarm("loss", kind="pipeline"), replace(alarm("x"), severity="ticket")]
    tested.observe(standing, T0)
    assert not tested.due(T0)
    (notice,) = tested.due(T0 + 300)
    assert told([notice]) == [("raised", "income"), ("raised", "age")]
    assert orjson.loads(notice.body)["type"] == "model.retraining"
    tested.observe([*standing, alarm("tenure")], T0 + 600)
    assert not tested.due(T0 + 3600)
    assert told(tested.due(T0 + 300 + 86_400)) == [("raised", "tenure")]


def test_a_clock_that_goes_back_holds_nothing_back() -> None:
    """Neither the group's wait nor the cooldown lasts longer for it."""
    tested = book()
    tested.observe([alarm()], T0)
    tested.due(T0)
    assert told(tested.due(T0 - 86_400)) == [("raised", "income")]


def test_evidence_that_is_too_large_is_left_out() -> None:
    """The message still says what happened and where to look."""
    tested = book(group_wait="0s")
    tested.observe([replace(alarm(), evidence={"scores": ["x" * 1000] * 1000})], T0)
    (notice,) = tested.due(T0)
    assert len(notice.body) < 4096
    assert "omitted" in orjson.loads(notice.body)["alarms"][0]["evidence"]


@pytest.mark.parametrize(
    ("silence", "said"),
    [
        ({"cron": "0 25 * * *", "for": "1h"}, "no cron expression"),
        ({"cron": "0 1 * * *", "for": "1h", "tz": "Mars/Olympus"}, "no time zone"),
        ({"cron": "@daily", "for": "1h"}, "five fields"),
    ],
)
def test_an_unreadable_silence_is_refused(silence: dict[str, str], said: str) -> None:
    """With what is wrong with it."""
    with pytest.raises(ValidationError, match=said):
        AlertSettings.model_validate({"silences": [silence]})
