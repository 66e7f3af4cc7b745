"""Gateways, each with a FleetPolicy, before servers with queues: event by event, in virtual time, seeded."""

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.backends.remote.policy import FleetPolicy
from gateway.core.remote import Address, EndpointState, FleetOptions, Outcome

LINE = 1000
"""Requests that may wait for room; so many that nobody is refused who would come again at once."""


def address(number: int) -> Address:
    return Address("10.0.0.1", 8000 + number)


class World:
    """Virtual time: what is due is done in order."""

    def __init__(self, seed: int = 1) -> None:
        self.now_s = 0.0
        self.dice = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._due, (self.now_s + max(0.0, seconds), self._number, do))

    def run_until(self, end_s: float) -> None:
        while self._due and self._due[0][0] <= end_s:
            self.now_s, _, do = heapq.heappop(self._due)
            do()
        self.now_s = end_s


@dataclass(eq=False)
class Job:
    """One attempt at a server; `done` is called once, unless it is given up before."""

    done: Callable[[Outcome], None]
    came_s: float = 0.0
    over: bool = False


@dataclass(eq=False)
class Server:
    """Runs up to `runs` jobs at once, in order; each takes `service_s` on average, exponentially spread.

    Attributes:
        fail_share: of jobs that fail, at once, without running.
        refuses: it says that it is full.
        hangs: it answers nothing, probes neither.
        ready: what it says to probes.
        extra_s: added to each answer, without running.
        fixed: every job takes the same time.
    """

    world: World
    runs: int = 4
    service_s: float = 0.02
    fail_share: float = 0.0
    refuses: bool = False
    hangs: bool = False
    ready: bool = True
    extra_s: float = 0.0
    fixed: bool = False
    queue: deque[Job] = field(default_factory=deque)
    busy: int = 0
    attempts: int = 0
    ok: int = 0
    most: int = 0
    under_way: int = 0
    waited_s: float = 0.0
    ran_s: float = 0.0
    count: int = 0

    def send(self, job: Job) -> None:
        self.attempts += 1
        job.came_s = self.world.now_s
        if self.hangs:
            return
        if self.refuses:
            self.world.after(0.001, lambda: self._answer(job, Outcome.REFUSED))
        elif self.world.dice.random() < self.fail_share:
            self.world.after(0.001, lambda: self._answer(job, Outcome.FAILED))
        else:
            self.queue.append(job)
            self._next()

    def _next(self) -> None:
        while self.busy < self.runs and self.queue:
            job = self.queue.popleft()
            if job.over:
                continue
            self.busy += 1
            run_s = self.service_s
            if not self.fixed:
                run_s = self.world.dice.expovariate(1.0 / self.service_s)
            self.waited_s += self.world.now_s - job.came_s
            self.ran_s += run_s
            self.count += 1
            self.world.after(run_s, lambda job=job: self._ran(job))  # type: ignore[misc]

    def _ran(self, job: Job) -> None:
        self.busy -= 1
        self._next()
        if not self.hangs:
            self.world.after(self.extra_s, lambda: self._answer(job, Outcome.OK))

    def _answer(self, job: Job, outcome: Outcome) -> None:
        if job.over:
            return
        job.over = True
        self.ok += outcome is Outcome.OK
        job.done(outcome)

    def report(self) -> tuple[float, float, int]:
        count = max(1, self.count)
        said = self.waited_s / count, self.ran_s / count, self.count
        self.waited_s = self.ran_s = 0.0
        self.count = 0
        return said


@dataclass(eq=False)
class Request:
    began_s: float
    deadline_s: float
    tried: list[Address] = field(default_factory=list)
    over: bool = False
    then: Callable[[], None] | None = None


class Gateway:
    """Sends requests as the fleet's shell does: retries elsewhere, a bounded line, deadlines."""

    def __init__(self, world: World, servers: list[Server], options: FleetOptions, seed: int = 1) -> None:
        self.world = world
        self.options = options
        self.servers = {address(n): server for n, server in enumerate(servers)}
        self.decisions: Counter[str] = Counter()
        self.states: list[tuple[float, Address, EndpointState, str]] = []
        self.dice = random.Random(seed)
        self.policy = FleetPolicy(
            options,
            self.dice.random,
            on_endpoint=lambda a, s, r: self.states.append((world.now_s, a, s, r)),
            on_decision=lambda decision: self.decisions.update([decision]),
        )
        self.line: deque[Request] = deque()
        self.ended: list[tuple[float, bool]] = []
        self.seconds: list[float] = []
        self.requests = self.attempts = 0
        self._tick_at_s: float | None = None
        self.policy.set_addresses(list(self.servers), world.now_s)
        for number in range(len(servers)):
            self._probe(address(number))

    def errors(self, begin_s: float, end_s: float) -> float:
        """The share of requests that came between these times and had no answer."""
        came = [failed for when_s, failed in self.ended if begin_s <= when_s < end_s]
        return sum(came) / max(1, len(came))

    def state(self, number: int) -> EndpointState:
        return next(v.state for v in self.policy.views() if v.address == address(number))

    def offer(self, rate_per_s: float, until_s: float, within_s: float = 1.0) -> None:
        """Have requests come at random times."""

        def come() -> None:
            if self.world.now_s < until_s:
                self.request(within_s)
                self.world.after(self.dice.expovariate(rate_per_s), come)

        self.world.after(self.dice.expovariate(rate_per_s), come)

    def clients(self, count: int, until_s: float, within_s: float = 10.0) -> None:
        """Have so many clients, each of which sends its next request as soon as it can."""

        def again() -> None:
            if self.world.now_s < until_s:
                self.request(within_s, lambda: self.world.after(1e-4, again))

        for _ in range(count):
            again()

    def request(self, within_s: float, then: Callable[[], None] | None = None) -> None:
        self.requests += 1
        self.policy.request_began()
        request = Request(self.world.now_s, self.world.now_s + within_s, then=then)
        self.world.after(within_s, lambda: self._late(request))
        self._attempt(request)

    def _late(self, request: Request) -> None:
        if request in self.line:
            self.line.remove(request)
            self._end(request, failed=True)

    def _attempt(self, request: Request) -> None:
        if self.world.now_s >= request.deadline_s:
            self._end(request, failed=True)
        elif not self._sent(request):
            if len(self.line) >= max(LINE, self.policy.capacity) or self.policy.why_none == "no_endpoint":
                self._end(request, failed=True)
            else:
                self.line.append(request)

    def _sent(self, request: Request) -> bool:
        where = self.policy.pick(self.world.now_s, exclude=request.tried)
        if where is None and request.tried:
            where = self.policy.pick(self.world.now_s)
        if where is None:
            return False
        began_s = self.world.now_s
        server = self.servers[where]
        request.tried.append(where)
        self.attempts += 1
        self.policy.began(where, began_s)
        server.under_way += 1
        server.most = max(server.most, server.under_way)

        def done(outcome: Outcome) -> None:
            job.over = True
            server.under_way -= 1
            now_s = self.world.now_s
            self.policy.ended(where, outcome, now_s - began_s, now_s)
            self._outcome(request, outcome)
            self._plan()
            self._serve()

        job = Job(done)
        server.send(job)
        self.world.after(request.deadline_s - began_s, lambda: None if job.over else done(Outcome.TIMED_OUT))
        return True

    def _outcome(self, request: Request, outcome: Outcome) -> None:
        if outcome is Outcome.OK:
            self._end(request, failed=False)
        elif (
            len(request.tried) < self.options.retry.attempts
            and self.world.now_s < request.deadline_s
            and self.policy.may_retry(self.world.now_s)
        ):
            self.world.after(
                self.options.retry.backoff_s * self.dice.random(), lambda: self._attempt(request)
            )
        else:
            self._end(request, failed=True)

    def _end(self, request: Request, *, failed: bool) -> None:
        assert not request.over, "every request ends once"
        request.over = True
        self.ended.append((request.began_s, failed))
        if not failed:
            self.seconds.append(self.world.now_s - request.began_s)
        if request.then is not None:
            request.then()

    def _serve(self) -> None:
        while self.line and self._sent(self.line[0]):
            self.line.popleft()

    def _probe(self, where: Address) -> None:
        server, now_s = self.servers[where], self.world.now_s
        if server.hangs:
            self.world.after(self.options.probe_timeout_s, lambda: self._probed(where, False))
            pause_s = self.options.probe_timeout_s
        else:
            self._probed(where, server.ready)
            if server.ready and now_s > 0:
                self.policy.queue_reported(where, *server.report(), now_s)
            pause_s = 0.0
        jitter = 0.9 + 0.2 * self.dice.random()
        self.world.after(pause_s + self.options.probe_interval_s * jitter, lambda: self._probe(where))

    def _probed(self, where: Address, ready: bool) -> None:
        self.policy.probed(where, ready, self.world.now_s, "no answer")
        self._plan()
        self._serve()

    def _plan(self) -> None:
        due_s = self.policy.next_event_s(self.world.now_s)
        if due_s is not None and (self._tick_at_s is None or due_s < self._tick_at_s):
            self._tick_at_s = due_s
            self.world.after(due_s - self.world.now_s, self._tick)

    def _tick(self) -> None:
        self._tick_at_s = None
        self.policy.tick(self.world.now_s)
        self._plan()
        self._serve()


def world_of(
    count: int, options: FleetOptions | None = None, *, seed: int = 1, **server: object
) -> tuple[World, list[Server], Gateway]:
    """Return a gateway before `count` servers, warm for ten seconds of nothing."""
    world = World(seed)
    servers = [Server(world, **server) for _ in range(count)]  # type: ignore[arg-type]
    gateway = Gateway(world, servers, options or FleetOptions(name="f"), seed)
    world.run_until(10.0)
    return world, servers, gateway
