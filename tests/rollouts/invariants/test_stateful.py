"""Random walks through the world, far longer than exhaustion reaches; documents go through JSON."""

import json

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.rollouts import events
from gateway.rollouts.documents import restore, show, to_document
from tests.properties import examples
from tests.rollouts.invariants.actions import every_action
from tests.rollouts.invariants.checks import findings
from tests.rollouts.invariants.waypoints import FILES, settle, waypoints
from tests.rollouts.invariants.world import FROZEN_S, MONDAY_S, PAUSE, SHADOW, World, spec

FILED = FILES | {
    "D": spec(steps=(SHADOW, PAUSE, *spec().steps)),
    "E": spec(paused=True),
    "F": spec(stable=None),
}
START = list(waypoints(World(), FILES["A"]))


class Walk(RuleBasedStateMachine):
    """One world, and whatever may happen in it."""

    @initialize(at=st.integers(0, len(START) - 1))
    def begin(self, at: int) -> None:
        self.world = START[at][1].clone()
        self.world.by_json = True
        self.before = self.world.clone()
        self.found: list[str] = []

    @rule(choice=st.integers(0, 2**16), times=st.integers(1, 4))
    def anything(self, choice: int, times: int) -> None:
        for turn in range(times):
            possible = list(every_action(FILED)(self.world))
            if possible:
                self._do(possible[(choice * (2 * turn + 1)) % len(possible)][1])

    @rule()
    def calm(self) -> None:
        self._do(settle)

    @rule(frozen=st.booleans(), later=st.floats(0.1, 100.0))
    def time(self, *, frozen: bool, later: float) -> None:
        def passes(world: World) -> None:
            world.wall_s = FROZEN_S if frozen else MONDAY_S
            world.now_s += later
            world.tell(events.Tick)

        self._do(passes)

    def _do(self, act: object) -> None:
        self.before = self.world.clone()
        act(self.world)  # type: ignore[operator]  # an action of the world
        self.found += findings(self.before, self.world)

    @invariant()
    def nothing_is_broken(self) -> None:
        assert getattr(self, "found", []) == []

    @invariant()
    def documents_come_back_and_are_json(self) -> None:
        for node in self.world.nodes.values() if hasattr(self, "world") else ():
            if node.decider is not None:
                document = json.loads(json.dumps(to_document(node.decider)))
                assert to_document(restore(document)) == document
                json.dumps(show(node.decider, self.world.wall_s), allow_nan=False)


TestWalk = Walk.TestCase
TestWalk.settings = settings(
    max_examples=examples(50),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # to shrink takes minutes; the walk is printed
)
