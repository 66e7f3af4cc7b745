"""When the source asks: bounded waits, turns, hints, and one model in the way of no other."""

import asyncio
from dataclasses import replace
from pathlib import Path

from gateway.registry.following import PollOutcome
from gateway.registry.polling import PollOptions
from gateway.testing import settle
from tests.registry.fakes import TURNS, Rig, published, sourced

INTERVAL_S = PollOptions().interval_s
CAP_S = PollOptions().max_backoff_s


async def test_a_start_waits_a_bounded_time(tmp_path: Path) -> None:
    """Models that are answered are served; the others are named, and asked for at once again."""
    rig = published(Rig(tmp_path, sourced(), sourced("slow")))
    rig.registry.publish("5", "slow")
    rig.registry.alias("champion", "5", "slow")
    rig.registry.hanging = {"slow"}
    began_s = rig.clock.now_s()
    await rig.start()
    assert rig.clock.now_s() == began_s + rig.options.poll.start_timeout_s
    assert [v.id.model for v in rig.sets[0]] == ["fraud"]
    assert rig.source.problems() == {"slow": "resolve: registry 'prod' did not answer within 5 s"}
    rig.registry.release()
    await settle(TURNS)
    assert rig.labels == ["1", "5"]
    await rig.stop()


async def test_a_start_in_which_nothing_answers_leaves_no_question_open(tmp_path: Path) -> None:
    """However many models there are; those that were not even asked are not held to be slow."""
    models = [sourced(f"m{n}") for n in range(50)]
    rig = Rig(tmp_path, *models)
    rig.registry.hanging = {"*"}
    await rig.start(watch=False)
    assert rig.registry.open_questions == 0
    assert rig.registry.most_open == rig.options.poll.concurrency
    assert len(rig.source.problems()) == 50
    await rig.stop()


async def test_slow_models_delay_no_other(tmp_path: Path) -> None:
    """With more of them than turns, a model that is answered is followed as ever."""
    slow = [sourced(f"slow{n}") for n in range(40)]
    rig = published(Rig(tmp_path, sourced(), *slow))
    rig.registry.hanging = {model.name for model in slow}
    await rig.start()
    await rig.pass_s(60)
    for champion in ("2", "1", "2"):
        rig.registry.alias("champion", champion)
        await rig.pass_s(INTERVAL_S)
        assert rig.labels == [champion]
    assert rig.registry.open_questions <= rig.options.poll.retry_concurrency
    await rig.stop()


async def test_a_look_that_takes_too_long_is_called_off(tmp_path: Path) -> None:
    """It counts as failed; there is never more than one question about a model."""
    rig = published(Rig(tmp_path))
    await rig.start()
    rig.registry.hanging = {"fraud"}
    await rig.pass_s(300)
    assert rig.labels == ["1"]
    assert rig.registry.most_open == 1
    assert "did not answer within 15 s" in rig.status().message
    assert ("fraud", PollOutcome.TIMEOUT) in rig.polls
    await rig.stop()
    assert rig.registry.open_questions == 0


async def test_one_answer_wakes_the_other_models(tmp_path: Path) -> None:
    """After a long outage the first that is answered makes the rest be asked within an interval."""
    models = [sourced(f"m{n}") for n in range(8)]
    rig = Rig(tmp_path, *models)
    for model in models:
        rig.registry.publish("1", model.name)
        rig.registry.alias("champion", "1", model.name)
    await rig.start()
    rig.registry.down = True
    await rig.pass_s(600)
    rig.registry.down = False
    rig.source.hint("m3")
    await rig.pass_s(INTERVAL_S)
    assert rig.source.problems() == {}
    await rig.stop()


async def test_one_model_that_always_fails_is_not_asked_more_often_for_the_others(tmp_path: Path) -> None:
    """Its pauses grow although the others are answered."""
    rig = published(Rig(tmp_path, sourced(), sourced("slow")))
    await rig.start()
    rig.registry.hanging = {"slow"}
    await rig.pass_s(1200)
    rig.registry.asked.clear()
    await rig.pass_s(600)
    assert rig.registry.asked.count("slow") <= 600 / CAP_S + 1
    assert rig.registry.asked.count("fraud") >= 600 / INTERVAL_S - 1
    await rig.stop()


async def test_a_hint_makes_the_next_look_immediate(tmp_path: Path) -> None:
    """By the registry's name of the model, or for all; any number of hints makes one look a second."""
    rig = published(Rig(tmp_path))
    await rig.start()
    await rig.pass_s(1)
    rig.registry.alias("champion", "2")
    assert rig.source.hint("other") == 0
    await settle(TURNS)
    assert rig.labels == ["1"]
    asked = len(rig.registry.asked)
    for _ in range(50):
        assert rig.source.hint("fraud") == 1
    await settle(TURNS)
    assert rig.labels == ["2"]
    assert len(rig.registry.asked) == asked + 1
    for _ in range(50):
        rig.source.hint()
        await settle(TURNS)
    assert len(rig.registry.asked) == asked + 1
    await rig.pass_s(1)
    assert len(rig.registry.asked) == asked + 2
    await rig.pass_s(INTERVAL_S / 2)
    assert len(rig.registry.asked) == asked + 2
    await rig.stop()


async def test_a_hint_during_a_look_makes_another(tmp_path: Path) -> None:
    """The look may have been answered before what the hint is about."""
    rig = published(Rig(tmp_path))
    await rig.start()
    rig.registry.hanging = {"fraud"}
    rig.source.hint()
    await rig.pass_s(2)
    assert rig.registry.open_questions == 1
    rig.source.hint()
    asked = len(rig.registry.asked)
    rig.registry.release()
    await settle(TURNS)
    assert len(rig.registry.asked) == asked + 1
    await rig.stop()


async def test_looks_are_spread(tmp_path: Path) -> None:
    """What was asked at once at start is asked one after the other, each within its jitter."""
    models = [sourced(f"m{n}") for n in range(20)]
    rig = Rig(tmp_path, *models)
    numbers = iter([n / 400 for n in range(400)])
    rig.options = replace(rig.options, uniform=lambda: next(numbers))
    await rig.start()
    due = sorted(r.next_poll_s for r in rig.source.resolutions() if r.next_poll_s is not None)
    assert len(set(due)) == 20
    assert 0 <= due[0] <= due[-1] <= INTERVAL_S
    await rig.stop()


async def test_watching_can_be_stopped_and_begun_again(tmp_path: Path) -> None:
    """No task and no question is left behind, and the next watch goes on where this one was."""
    rig = published(Rig(tmp_path))
    tasks = asyncio.all_tasks()
    await rig.start()
    rig.registry.hanging = {"fraud"}
    rig.source.hint()
    await rig.pass_s(2)
    await rig.stop()
    assert asyncio.all_tasks() == tasks
    assert rig.registry.open_questions == 0
    rig.registry.release()
    rig.registry.alias("champion", "2")
    sets = rig.source.watch()
    assert [v.id.number for v in await anext(sets)] == [1]
    assert [v.id.number for v in await anext(sets)] == [2]
    await sets.aclose()


async def test_a_change_while_the_last_set_is_looked_at_is_not_lost(tmp_path: Path) -> None:
    """Whoever takes long over a set is given the next one at once."""
    rig = published(Rig(tmp_path))
    await rig.start(watch=False)
    await rig.pass_s(INTERVAL_S)
    sets = rig.source.watch()
    assert [v.id.number for v in await anext(sets)] == [1]
    rig.registry.alias("champion", "2")
    await settle(TURNS)
    later = asyncio.ensure_future(anext(sets))
    await settle(TURNS)
    assert later.done()
    assert [v.id.number for v in later.result()] == [2]
    await sets.aclose()


async def test_models_that_nobody_got_to_ask_for_at_start_are_asked_for_first(tmp_path: Path) -> None:
    """They are not held to be slow because others were."""
    models = [sourced(f"m{n:02}") for n in range(40)]
    rig = Rig(tmp_path, *models)
    for model in models:
        rig.registry.publish("1", model.name)
        rig.registry.alias("champion", "1", model.name)
    rig.registry.hanging = {model.name for model in models[:16]}
    assert await rig.start() == []
    assert [v.id.model for v in rig.sets[-1]] == [model.name for model in models[16:]]
    await rig.stop()
