"""Mirroring: when a copy runs, what it takes along, how it ends, and that its primary never notices."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gateway.core.errors import BackendError, Cancelled, Overloaded
from gateway.core.rollout import OutputRule
from gateway.core.types import RequestedOutput, VersionId
from gateway.routing.mirror import SHADOW_FLOW, MirrorOptions
from gateway.testing import infer_request, settle
from tests.routing.shadow_scene import MODEL, SHADOW, STABLE, Scene, balanced, plan, request, shadow

if TYPE_CHECKING:
    from gateway.core.evidence import ShadowCounts
    from gateway.core.pending import Pending

OTHER = VersionId(MODEL, 3, "three")


def outcome(counts: ShadowCounts) -> tuple[int, int, int, int, dict[str, int], int]:
    """Mirrored, compared, disagreed, failed, dropped, under way."""
    assert balanced(counts)
    return (
        counts.mirrored,
        counts.compared,
        counts.disagreed,
        counts.failed,
        dict(counts.dropped),
        counts.under_way,
    )


async def test_an_answer_is_compared_with_the_shadows() -> None:
    """Agreement and disagreement are counted, and the client's answer is stable's."""
    scene = Scene()
    scene.follow(plan(shadow()))
    assert (await scene.send(3.0)).outputs[0].array.tolist() == [[3.0]]
    await settle()
    scene.shadow_model.shift = 1.0
    answer = await scene.send(4.0)
    await settle()
    assert (answer.model_version, answer.outputs[0].array.tolist()) == ("1", [[4.0]])
    assert outcome(scene.counts()) == (2, 2, 1, 0, {}, 0)
    assert (scene.stable.leases, scene.shadow.leases) == (0, 0)


async def test_nothing_runs_before_the_primary_has_its_answer() -> None:
    """While the primary runs, its copy neither queues nor holds a lease."""
    scene = Scene()
    scene.stable_model._held = True
    scene.follow(plan(shadow()))
    pending = scene.send()
    await settle()
    assert (scene.shadow.leases, scene.shadow_model.batches) == (0, [])
    assert scene.counts().under_way == 1
    scene.stable_model.release()
    pending.add_done_callback(lambda _: order.append(("answer", len(scene.shadow_model.batches))))
    order: list[tuple[str, int]] = []
    await settle()
    assert order == [("answer", 0)]
    assert outcome(scene.counts()) == (1, 1, 0, 0, {}, 0)


async def test_a_copy_takes_the_tensors_and_nothing_of_its_client() -> None:
    """Its arrays are the primary's own; headers, identity, trace and deadline stay behind."""
    scene = Scene()
    seen = []
    batcher = scene.shadow.batcher()
    submitted = batcher.submit

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(batcher, name)

        def submit(self, copied: object) -> Pending:
            seen.append(copied)
            return submitted(copied)  # type: ignore[arg-type]

    scene.shadow._only = Watched()  # type: ignore[assignment]
    scene.follow(plan(shadow()))
    sent = request(1.0, headers={"authorization": "secret"}, flow_key="tenant", deadline_s=2000.0)
    await scene.router.submit(sent)
    await settle()
    [copied] = seen
    assert copied.inputs is sent.inputs  # type: ignore[attr-defined]
    # The prediction log joins both, and finds whom they are about, by a header.
    assert copied.headers is sent.headers  # type: ignore[attr-defined]
    assert copied.assigned.arm == "shadow:next"  # type: ignore[attr-defined]
    assert sent.assigned is not None
    assert sent.assigned.arm == "stable"
    assert copied.flow_key == SHADOW_FLOW  # type: ignore[attr-defined]
    assert copied.deadline_s == 1000.0 + MirrorOptions().deadline_s  # type: ignore[attr-defined]


async def test_copies_wait_for_headroom_and_are_dropped_in_the_end() -> None:
    """No copy starts while less of the device is free than asked for; after its deadline it is given up."""
    scene = Scene(slots=3)
    other_model, other = scene.version(OTHER)
    scene.catalog.show(scene.stable, scene.shadow, other)
    scene.follow(plan(shadow(headroom_ppm=700_000)))
    other_model._held = True
    busy = scene.send(model_version="3")
    await settle()
    await scene.send()
    await settle()
    assert (scene.scheduler.running, scene.shadow_model.batches) == (1, [])
    scene.clock.advance(0.999)
    await settle()
    assert outcome(scene.counts()) == (1, 0, 0, 0, {}, 1)
    scene.clock.advance(0.002)
    await settle()
    assert outcome(scene.counts()) == (1, 0, 0, 0, {"headroom": 1}, 0)
    other_model.release()
    await busy


@pytest.mark.parametrize(("slots", "runs"), [(2, 0), (3, 1)])
async def test_a_copy_leaves_one_of_several_slots_to_others(slots: int, runs: int) -> None:
    """Without any headroom asked for it waits until one more than its own is free."""
    scene = Scene(slots=slots)
    other_model, other = scene.version(OTHER)
    scene.catalog.show(scene.stable, scene.shadow, other)
    scene.follow(plan(shadow()))
    other_model._held = True
    busy = scene.send(model_version="3")
    await settle()
    await scene.send()
    await settle()
    assert len(scene.shadow_model.batches) == runs
    other_model.release()
    await busy
    await settle()
    assert outcome(scene.counts()) == (1, 1, 0, 0, {}, 0)


async def test_copies_do_not_share_the_run_that_all_others_wait_for() -> None:
    """On a device with one slot a run of theirs is as short as it can be."""
    scene = Scene(slots=1)
    scene.follow(plan(shadow()))
    for pending in [scene.send() for _ in range(3)]:
        await pending
    await settle()
    assert [batch.rows for batch in scene.shadow_model.batches] == [1, 1, 1]


async def test_a_copy_goes_behind_whoever_wants_the_device() -> None:
    """A request that comes with the answer runs first; the end of its run starts the copy, not time."""
    scene = Scene(slots=1)
    other_model, other = scene.version(OTHER)
    scene.catalog.show(scene.stable, scene.shadow, other)
    scene.follow(plan(shadow()))
    other_model._held = True

    def come_back(_: Pending) -> None:
        scene.send(model_version="3")

    scene.send().add_done_callback(come_back)
    await settle()
    assert (len(other_model.batches), scene.shadow_model.batches) == (1, [])
    other_model.release()
    await settle()
    assert outcome(scene.counts()) == (1, 1, 0, 0, {}, 0)


async def test_copies_share_runs_one_at_a_time() -> None:
    """Of many that are due at once, so many go together, and the next when those are done."""
    scene = Scene(slots=8, options=MirrorOptions(max_together=3))
    scene.stable_model._held = scene.shadow_model._held = True
    scene.follow(plan(shadow(max_inflight=8)))
    for _ in range(7):
        scene.send()
    await settle()
    scene.stable_model.release()
    await settle()
    assert [batch.rows for batch in scene.shadow_model.batches] == [3]
    await scene.send()
    await settle()
    assert scene.shadow.batcher().queued_requests == 0
    scene.shadow_model.release(1)
    await settle()
    assert [batch.rows for batch in scene.shadow_model.batches] == [3, 3]
    scene.shadow_model.release()
    await settle()
    assert outcome(scene.counts()) == (8, 8, 0, 0, {}, 0)


async def test_two_shadows_do_not_take_one_slot_between_them() -> None:
    """With one slot to spare the second shadow waits for the first, so that nobody finds two runs ahead."""
    scene = Scene(slots=1)
    other_model, other = scene.version(OTHER)
    scene.catalog.show(scene.stable, scene.shadow, other)
    scene.shadow_model._held = True
    scene.follow(plan(shadow(), shadow(OTHER, "other")))
    await scene.send()
    await settle()
    assert (len(scene.shadow_model.batches), scene.scheduler.spare_slots, other.leases) == (1, 0, 0)
    scene.shadow_model.release()
    await settle()
    assert (outcome(scene.counts()), outcome(scene.counts("other"))) == ((1, 1, 0, 0, {}, 0),) * 2
    assert len(other_model.batches) == 1


async def test_the_cap_counts_every_step_together() -> None:
    """Copies of the step before still count against the cap, and end in that step's totals."""
    scene = Scene()
    scene.shadow_model._held = True
    first = plan(shadow(max_inflight=2))
    scene.follow(first)
    await scene.send()
    await scene.send()
    await settle()
    second = replace(first, step=1)
    scene.follow(second)
    await scene.send()
    assert outcome(scene.counts(step=1)) == (1, 0, 0, 0, {"inflight": 1}, 0)
    assert ("r1", 0) not in scene.mirror.evidence()
    scene.shadow_model.release()
    await settle()
    await scene.send()
    await settle()
    assert outcome(scene.counts(step=1)) == (2, 1, 0, 0, {"inflight": 1}, 0)


async def test_bytes_are_charged_until_the_copy_ends() -> None:
    """Copies that would keep more bytes alive than allowed are dropped; ended ones give theirs back."""
    scene = Scene(options=MirrorOptions(max_bytes=8))
    scene.shadow_model._held = True
    scene.follow(plan(shadow()))
    for _ in range(3):
        await scene.send()  # four bytes each
    assert outcome(scene.counts()) == (3, 0, 0, 0, {"inflight": 1}, 2)
    scene.shadow_model.release()
    await settle()
    await scene.send()
    await settle()
    assert outcome(scene.counts()) == (4, 3, 0, 0, {"inflight": 1}, 0)


@pytest.mark.parametrize("there", ["absent", "other content"])
async def test_a_version_that_is_not_there_gets_nothing(there: str) -> None:
    """Neither a missing version nor another digest under its number is run."""
    scene = Scene()
    replaced_model, replaced = scene.version(VersionId(MODEL, 2, "changed"))
    scene.catalog.show(*([scene.stable] if there == "absent" else [scene.stable, replaced]))
    scene.follow(plan(shadow()))
    await scene.send()
    await settle()
    assert outcome(scene.counts()) == (1, 0, 0, 0, {"not_ready": 1}, 0)
    assert (replaced_model.batches, replaced.leases) == ([], 0)


async def test_an_unload_waits_for_a_copys_run() -> None:
    """The lease keeps the version until its run is over; afterwards nothing is held."""
    scene = Scene()
    scene.shadow_model._held = True
    scene.follow(plan(shadow()))
    await scene.send()
    await settle()
    scene.catalog.show(scene.stable)
    await scene.send()
    await settle()
    assert scene.shadow.leases == 1
    assert outcome(scene.counts()) == (2, 0, 0, 0, {"not_ready": 1}, 1)
    scene.shadow_model.release()
    await settle()
    assert scene.shadow.leases == 0
    assert outcome(scene.counts()) == (2, 1, 0, 0, {"not_ready": 1}, 0)
    await scene.shadow.aclose()


async def test_a_full_queue_of_the_shadow_is_no_failure_of_it() -> None:
    """A refused copy is dropped, and the others that were due have their turn."""
    scene = Scene(slots=3, options=MirrorOptions(max_together=1))
    full_model, full = scene.version(SHADOW, max_queue_age_s=0.0, max_queue_rows=1)
    scene.catalog.show(scene.stable, full)
    full_model._held = True
    blocking = [scene.send(model_version="2") for _ in range(1)]
    await settle()
    blocking.append(scene.send(model_version="2"))
    scene.follow(plan(shadow()))
    scene.send()
    scene.send()
    await settle()
    assert outcome(scene.counts()) == (2, 0, 0, 0, {"refused": 2}, 0)
    full_model.release()
    for pending in blocking:
        await pending


async def test_a_crashing_shadow_counts_as_failed() -> None:
    """The backend's failures end copies as failed; the answers went out before."""
    scene = Scene()
    scene.shadow_model.broken = True
    scene.follow(plan(shadow()))
    assert (await scene.send(5.0)).outputs[0].array.tolist() == [[5.0]]
    await settle()
    assert outcome(scene.counts()) == (1, 0, 0, 1, {}, 0)
    assert scene.counts().failed_alone == 1


async def test_a_shadow_that_cannot_take_the_request_counts_as_failed() -> None:
    """What stable answers and the shadow refuses as invalid is the shadow's failure."""
    scene = Scene()
    _, other = scene.version(SHADOW, features=3)
    scene.catalog.show(scene.stable, other)
    scene.follow(plan(shadow()))
    await scene.send()
    await settle()
    assert outcome(scene.counts()) == (1, 0, 0, 1, {}, 0)
    assert scene.counts().failed_alone == 1
    assert other.leases == 0


async def test_a_failed_primary_is_not_copied() -> None:
    """There is nothing to compare with: the copy counts as failed and never runs."""
    scene = Scene()
    scene.stable_model.broken = True
    scene.follow(plan(shadow()))
    with pytest.raises(BackendError):
        await scene.send()
    await settle()
    assert outcome(scene.counts()) == (1, 0, 0, 1, {}, 0)
    assert scene.counts().failed_alone == 0
    assert scene.shadow_model.batches == []


async def test_a_refused_primary_is_not_mirrored() -> None:
    """A request that was never dispatched has no copy."""
    scene = Scene()
    model, small = scene.version(STABLE, max_queue_rows=1)
    scene.catalog.show(small, scene.shadow)
    model._held = True
    scene.follow(plan(shadow()))
    admitted = [scene.send()]
    await settle()
    admitted.append(scene.send())
    with pytest.raises(Overloaded):
        scene.send()
    assert scene.counts().mirrored == 2
    model.release()
    for pending in admitted:
        await pending
    await settle()
    assert balanced(scene.counts())


async def test_a_cancelled_primary_gives_its_copy_up() -> None:
    """Before the answer the copy is dropped; after it, it goes on."""
    scene = Scene()
    scene.stable_model._held = True
    scene.follow(plan(shadow()))
    pending = scene.send()
    await settle()
    pending.cancel()
    with pytest.raises(Cancelled):
        pending.result()
    assert outcome(scene.counts()) == (1, 0, 0, 0, {"cancelled": 1}, 0)
    scene.stable_model.release()
    await settle()
    assert scene.shadow_model.batches == []


async def test_the_end_gives_every_copy_up() -> None:
    """Waiting for the primary, for room, and running: all are dropped; later nothing is mirrored."""
    scene = Scene(slots=1)
    scene.shadow_model._held = True
    scene.follow(plan(shadow()))
    await scene.send()
    await settle()
    await_room = scene.send()
    await settle()
    waiting = scene.send()
    assert scene.counts().under_way == 3
    await scene.mirror.aclose()
    assert outcome(scene.counts()) == (3, 0, 0, 0, {"shutdown": 3}, 0)
    assert scene.shadow.leases == 0
    scene.shadow_model.release()
    for pending in (await_room, waiting):
        await pending
    await settle()
    await scene.send()
    assert outcome(scene.counts()) == (3, 0, 0, 0, {"shutdown": 3}, 0)
    assert scene.shadow.leases == 0


async def test_sampling_takes_its_share_and_is_not_the_assignment() -> None:
    """A fifth is mirrored, the same for the same request id, and independent of the key's bucket."""
    scene = Scene(options=MirrorOptions(max_together=64))
    scene.follow(plan(shadow(sample_ppm=200_000, max_inflight=64)))
    low = []
    for number in range(2000):
        before = scene.counts().mirrored
        sent = request(request_id=f"id-{number}")
        await scene.router.submit(sent)
        await settle(5)
        if scene.counts().mirrored > before:
            assert sent.assigned is not None
            low.append(sent.assigned.unit < 1 << 63)
    assert 300 <= len(low) <= 500
    assert 0.4 <= sum(low) / len(low) <= 0.6
    again = scene.counts().mirrored
    for number in range(2000):
        await scene.send(request_id=f"id-{number}")
        await settle(5)
    assert scene.counts().mirrored == 2 * again


async def test_requests_without_ids_are_sampled_too() -> None:
    """Without an id of their own a share is taken all the same."""
    scene = Scene()
    scene.follow(plan(shadow(sample_ppm=500_000, max_inflight=64)))
    for _ in range(200):
        await scene.send()
        await settle(5)
    assert 60 <= scene.counts().mirrored <= 140


async def test_requests_that_a_shadow_has_nothing_to_say_to_are_not_mirrored() -> None:
    """Its own answers, explicit versions, and requests for outputs that no rule looks at."""
    scene = Scene()
    scene.follow(plan(shadow(rules=(OutputRule("score"),)), shadow(STABLE, "same")))
    await scene.send(outputs=(RequestedOutput("y"),))
    await scene.send(model_version="1")
    await settle()
    assert scene.counts().mirrored == 0
    assert scene.counts("same").mirrored == 0


async def test_disagreement_is_told_by_slice() -> None:
    """By header or parameter, whichever there is."""
    scene = Scene()
    scene.follow(plan(shadow(slices=("X-Country", "tier"))))
    await scene.send(headers={"x-country": "de"}, parameters={"tier": 1})
    await settle()
    scene.shadow_model.shift = 1.0
    await scene.send(headers={"x-country": "fr"})
    await settle()
    assert scene.counts().slices == {
        "X-Country": {"de": (1, 0), "fr": (1, 1)},
        "tier": {"1": (1, 0), "": (1, 1)},
    }


async def test_large_answers_are_compared_in_a_thread() -> None:
    """They end likewise, also where they disagree."""
    scene = Scene()
    features = 1 << 15
    _, large = scene.version(STABLE, features=features)
    other_model, other = scene.version(SHADOW, features=features)
    scene.catalog.show(large, other)
    scene.follow(plan(shadow()))
    for shift in (0.0, 1.0):
        other_model.shift = shift
        await scene.router.submit(infer_request(np.ones((1, features), np.float32), model=MODEL))
        while scene.counts().under_way:
            await settle()
    assert outcome(scene.counts()) == (2, 2, 1, 0, {}, 0)


async def test_what_is_wrong_with_a_shadow_never_reaches_the_request() -> None:
    """A broken slice value, say, costs the copy and leaves a line in the log."""

    class Unprintable:
        def __str__(self) -> str:
            raise ValueError("no text")

    scene = Scene()
    scene.follow(plan(shadow(slices=("tier",))))
    answer = await scene.send(parameters={"tier": Unprintable()})
    assert answer.outputs[0].array.tolist() == [[1.0]]
    assert balanced(scene.counts())
    assert scene.counts().under_way == 0


async def test_the_lowest_priority_is_the_copys() -> None:
    """Where the version has levels, requests of its own clients that come later go first."""
    scene = Scene(slots=4)
    model, levelled = scene.version(SHADOW, priority_levels=3, default_priority=1, max_batch_rows=1)
    scene.catalog.show(scene.stable, levelled)
    model._held = True
    scene.follow(plan(shadow()))
    first = scene.send(7.0, model_version="2")
    await settle()
    await scene.send(1.0)
    await settle()
    assert scene.queued(levelled) == 1, "the copy waits behind the run that is held"
    second = scene.send(8.0, model_version="2")
    await settle()
    for _ in range(3):
        model.release(1)
        await settle()
    assert [batch.inputs["x"].item() for batch in model.batches] == [7.0, 8.0, 1.0]
    assert (first.done, second.done) == (True, True)
