"""Breaks the rules of the request path one by one, and looks whether the tests of `tests/routing` notice.

The invariants are those of the rollouts' design: I2 a key never leaves a growing arm, I3 assignment is a
pure function that any language can reproduce, I4 the digest is fixed at admission, I6 one plan for each
request, I14 shadows change nothing and every copy is counted, I19 a fallback counts for the arm assigned. The
decider's mutants are in `tests/rollouts/invariants`. Run as `python -m tests.routing.mutants [WORD ...]`; it
exits 1 if a mutant survives, or if a rule is no longer written as this list has it.
"""

from __future__ import annotations

import sys
from typing import Final

from tests.mutation import Mutant, survivors

BUCKETS: Final = ("test_buckets.py",)
SPLIT: Final = ("test_split.py",)
KEYS: Final = ("test_keys.py",)
ROUTES: Final = ("test_routes.py", "test_router.py", "test_fallback.py")
COUNTS: Final = ("test_counting.py", "test_routes.py", "test_fallback.py", "test_routed_streams.py")
MIRROR: Final = ("test_mirror.py", "test_mirror_properties.py", "test_mirror_device.py")
COMPARE: Final = ("test_comparison.py",)

MUTANTS: Final = (
    Mutant(
        "I3 salt without its length",
        "bucket.py",
        'return len(salt).to_bytes(_LENGTH_BYTES, "little") + salt',
        "return salt",
        BUCKETS,
    ),
    Mutant(
        "I3 key without its length",
        "bucket.py",
        'salt + len(key).to_bytes(_LENGTH_BYTES, "little") + key',
        "salt + key",
        BUCKETS,
    ),
    Mutant(
        "I3 big-endian length",
        "bucket.py",
        'len(key).to_bytes(_LENGTH_BYTES, "little")',
        'len(key).to_bytes(_LENGTH_BYTES, "big")',
        BUCKETS,
    ),
    Mutant("I3 modulo instead of the upper bits", "bucket.py", "(unit * PPM) >> 64", "unit % PPM", BUCKETS),
    Mutant(
        "I2 arms in the order of the file",
        "split.py",
        "others = sorted(range(1, len(names)), key=names.__getitem__)",
        "others = list(range(1, len(names)))",
        SPLIT,
    ),
    Mutant(
        "I2 an arm grows from its upper end",
        "split.py",
        "pieces.append((starts[index], starts[index] + own, index))",
        "pieces.append((ends[index] - own, ends[index], index))",
        SPLIT,
    ),
    Mutant(
        "I2 boundaries follow the weights",
        "split.py",
        "starts = [min(index * PPM // count, usable) for index in range(count)]",
        "starts = [min(sum(weights[:index]), usable) for index in range(count)]",
        SPLIT,
    ),
    Mutant(
        "I3 boundary belongs to the piece before",
        "split.py",
        "bisect_right(self.starts, bucket)",
        "bisect_right(self.starts, bucket - 1)",
        SPLIT,
    ),
    Mutant(
        "I3 holdout given away",
        "split.py",
        "usable = PPM - holdout_ppm if weights[0] else PPM",
        "usable = PPM",
        SPLIT,
    ),
    Mutant(
        "I3 spill from the lower end",
        "split.py",
        "pieces.append((ends[other] - taken, ends[other], index))",
        "pieces.append((starts[other], starts[other] + taken, index))",
        SPLIT,
    ),
    Mutant(
        "I1 sum of weights unchecked",
        "split.py",
        "if min(weights) < 0 or sum(weights) != PPM:",
        "if min(weights) < 0:",
        SPLIT,
    ),
    Mutant("I3 an empty key counts", "keys.py", "            if text:\n", "            if True:\n", KEYS),
    Mutant(
        "I3 booleans as Python writes them",
        "keys.py",
        'return "true" if value else "false"',
        "return str(value)",
        KEYS,
    ),
    Mutant(
        "I3 a choice without the scope",
        "keys.py",
        "not override.scope or override.scope in request.principal.scopes",
        "True",
        KEYS,
    ),
    Mutant(
        "I3 a choice beyond the list",
        "keys.py",
        "allowed and name in override.arms and name in self._arms",
        "allowed and name in self._arms",
        KEYS,
    ),
    Mutant(
        "I3 explicit versions follow the route",
        "router.py",
        "if route is not None and not request.model_version:",
        "if route is not None:",
        ROUTES,
    ),
    Mutant(
        "I6 a plan is changed in place",
        "routes.py",
        "        routes: dict[str, Route] = {}\n",
        "        routes: dict[str, Route] = self.routes  # type: ignore[assignment]\n",
        ROUTES,
    ),
    Mutant(
        "I4 digest unchecked",
        "fallback.py",
        "if lease.version.id.digest != arm.version.digest:",
        "if False:",
        ROUTES,
    ),
    Mutant(
        "I4 the wrong digest's lease is kept",
        "fallback.py",
        "    if lease.version.id.digest != arm.version.digest:\n        lease.release()",
        "    if lease.version.id.digest != arm.version.digest:",
        ROUTES,
    ),
    Mutant(
        "I4 the arm assigned is named, not the one that answered",
        "routes.py",
        "arm = self._named[assigned.served]\n        fallback",
        "arm = self._named[assigned.arm]\n        fallback",
        ROUTES,
    ),
    Mutant(
        "I19 a fallback counts for stable",
        "routes.py",
        "counter = self._named[assigned.arm].counter",
        "counter = self._named[assigned.served].counter",
        COUNTS,
    ),
    Mutant(
        "I19 a fallback is no error",
        "routes.py",
        "stood_in or error is not None)",
        "error is not None)",
        COUNTS,
    ),
    Mutant("I19 fallbacks uncounted", "routes.py", "            counter.fallbacks += stood_in\n", "", COUNTS),
    Mutant(
        "I19 refused alone is not the arm's fault",
        "routes.py",
        "not (stood_in or refused_alone)",
        "not stood_in",
        COUNTS,
    ),
    Mutant(
        "I7 overridden requests are evidence",
        "routes.py",
        "        if assigned.overridden:\n            return\n",
        "",
        COUNTS,
    ),
    Mutant(
        "I7 evidence of another step goes on",
        "routes.py",
        "(one.rollout_id, one.step) == (other.rollout_id, other.step)",
        "one.rollout_id == other.rollout_id",
        COUNTS,
    ),
    Mutant(
        "I7 evidence from before the plan",
        "routes.py",
        "if request.arrived_s >= self.plan.evidence_from_s:",
        "if True:",
        COUNTS,
    ),
    Mutant("I19 keys counted twice", "counting.py", "self._buckets[place] = known | bit", "pass", COUNTS),
    Mutant(
        "I19 expired requests are run again",
        "fallback.py",
        "isinstance(error, ARM_FAILURES) and not route.has_expired(request)",
        "isinstance(error, ARM_FAILURES)",
        ROUTES,
    ),
    Mutant(
        "I4 cancelling reaches no run",
        "fallback.py",
        "            self._running.cancel()",
        "            pass",
        ROUTES,
    ),
    Mutant(
        "I4 a failed arm's lease is kept",
        "fallback.py",
        "        flight, error = self._flight, running.error\n        flight.lease.release()",
        "        flight, error = self._flight, running.error",
        ROUTES,
    ),
    Mutant(
        "I14 a mirror's error reaches the request",
        "router.py",
        "        except Exception:  # noqa: BLE001 - logged: a shadow must not",
        "        except ZeroDivisionError:  # noqa: BLE001 - logged: a shadow must not",
        (*MIRROR, *ROUTES),
    ),
    Mutant(
        "I14 headroom ignored",
        "mirror.py",
        " or spare * PPM < lane.spec.headroom_ppm * slots.slots",
        "",
        MIRROR,
    ),
    Mutant(
        "I14 the last free slot is taken",
        "mirror.py",
        "least = min(slots.slots, SEVERAL)",
        "least = 1",
        MIRROR,
    ),
    Mutant(
        "I14 copies share a device's only slot", "mirror.py", "slots.slots < SEVERAL for", "False for", MIRROR
    ),
    Mutant(
        "I14 mirrors on when closed",
        "mirror.py",
        "        if self._closed:\n            return\n",
        "",
        MIRROR,
    ),
    Mutant(
        "I14 a copy ends twice",
        "shadow_copies.py",
        "        if self.ended:\n            return False\n        self.ended = True",
        "        self.ended = True",
        MIRROR,
    ),
    Mutant(
        "I14 a copy given up is not counted",
        "shadow_copies.py",
        "        self.drop(Dropped.SHUTDOWN)\n        if pending",
        "        if pending",
        MIRROR,
    ),
    Mutant(
        "I14 a copy's lease is kept",
        "shadow_copies.py",
        "        if lease is not None:\n            lease.release()\n        if not",
        "        if not",
        MIRROR,
    ),
    Mutant(
        "I14 the primary's failure counts against the shadow",
        "shadow_copies.py",
        "            self._fail(alone=False)\n\n    def run",
        "            self._fail(alone=True)\n\n    def run",
        MIRROR,
    ),
    Mutant(
        "I14 copies go before others in the queue",
        "shadow_copies.py",
        "priority=version.spec.batching.priority_levels",
        "priority=1",
        MIRROR,
    ),
    Mutant(
        "I14 NaN agrees with anything",
        "comparison.py",
        "(primary != primary) & (shadow != shadow)",
        "(primary != primary) | (shadow != shadow)",
        COMPARE,
    ),
    Mutant(
        "I14 shapes unchecked",
        "comparison.py",
        "        and shadow.array.shape == primary.array.shape\n",
        "",
        COMPARE,
    ),
    Mutant(
        "I14 an infinite limit lets anything pass",
        "comparison.py",
        "(np.abs(one - other) <= limit) & np.isfinite(one)",
        "(np.abs(one - other) <= limit)",
        COMPARE,
    ),
    Mutant(
        "I14 of equals the last is larger",
        "comparison.py",
        "places: npt.NDArray[np.intp] = last - backwards[..., ::-1][..., :k]",
        "places: npt.NDArray[np.intp] = np.argsort(-array, axis=-1)[..., :k]",
        COMPARE,
    ),
)


if __name__ == "__main__":
    sys.exit(survivors(MUTANTS, "routing", "routing", sys.argv[1:]) > 0)
