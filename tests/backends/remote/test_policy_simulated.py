"""What users, endpoints and other gateways see of the policy's decisions, in simulated fleets."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from gateway.core.remote import (
    ConcurrencyOptions,
    EjectionOptions,
    EndpointState,
    FleetOptions,
    HedgingOptions,
    RetryOptions,
)
from tests.backends.remote.simulation import Gateway, Server, World, address, world_of

SEEDS = range(2)
OPTIONS = FleetOptions(name="f")


def broken(server: Server) -> None:
    server.fail_share = 1.0


def half_broken(server: Server) -> None:
    server.fail_share = 0.5


def third_broken(server: Server) -> None:
    server.fail_share = 0.35


def hanging(server: Server) -> None:
    server.hangs = True


def unready(server: Server) -> None:
    server.ready, server.fail_share = False, 1.0


def full(server: Server) -> None:
    server.refuses = True


def slow(server: Server) -> None:
    server.extra_s = 0.5


FAULTS = [broken, half_broken, third_broken, hanging, unready, full, slow]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("count", [3, 10])
def test_one_bad_endpoint_is_hardly_noticed(fault: Callable[[Server], None], count: int, seed: int) -> None:
    """Under 0.5 % of requests fail five seconds after, few are sent twice, and it serves again once well."""
    world, servers, gateway = world_of(count, seed=seed)
    gateway.offer(100.0, 60.0)
    world.run_until(20.0)
    assert gateway.errors(10.0, 19.0) == 0.0
    assert gateway.attempts == gateway.requests
    fault(servers[0])
    world.run_until(40.0)
    assert gateway.errors(25.0, 38.0) < 0.005
    sick = servers[0]
    sick.fail_share, sick.hangs, sick.ready, sick.refuses, sick.extra_s = 0.0, False, True, False, 0.0
    world.run_until(70.0)
    assert gateway.state(0) is EndpointState.HEALTHY
    assert gateway.errors(41.0, 60.0) < 0.005
    assert gateway.attempts <= 1.1 * gateway.requests
    before = sick.ok
    gateway.offer(100.0, 80.0)
    world.run_until(81.0)
    assert (sick.ok - before) / 1000 == pytest.approx(1 / count, rel=0.35)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", [broken, full, unready], ids=lambda fault: fault.__name__)
def test_all_bad_makes_no_storm(fault: Callable[[Server], None], seed: int) -> None:
    """Attempts stay within the budget and its floor, and all serve again soon after they are well."""
    world, servers, gateway = world_of(10, seed=seed)
    for server in servers:
        fault(server)
    gateway.offer(80.0, 70.0)
    world.run_until(40.0)
    floor = OPTIONS.retry.budget_floor_per_s * 30.0 + 1.0
    assert gateway.attempts <= 1.1 * gateway.requests + floor
    assert gateway.errors(10.0, 30.0) > 0.99
    for server in servers:
        server.fail_share, server.refuses, server.ready = 0.0, False, True
    world.run_until(70.0)
    assert gateway.errors(48.0, 69.0) == 0.0


@pytest.mark.parametrize("seed", SEEDS)
def test_what_fails_everywhere_alike_ejects_nobody(seed: int) -> None:
    """A canary that gets half of the requests and fails all of them is no endpoint's fault."""
    world, servers, gateway = world_of(3, seed=seed)
    for server in servers:
        server.fail_share = 0.5
    gateway.offer(100.0, 60.0)
    while world.now_s < 60.0:
        world.run_until(world.now_s + 0.05)
        assert not any(v.ejections for v in gateway.policy.views())


@pytest.mark.parametrize("bad", range(1, 11))
def test_most_endpoints_stay_in_use_whatever_requests_meet(bad: int) -> None:
    """No more than half of ten are ejected for failures; users get what the rest can give."""
    world, servers, gateway = world_of(10)
    for server in servers[:bad]:
        broken(server)
    gateway.offer(150.0, 40.0)
    worst = 0
    while world.now_s < 40.0:
        world.run_until(world.now_s + 0.05)
        ejected = sum(v.state is EndpointState.EJECTED for v in gateway.policy.views())
        worst = max(worst, ejected)
    if bad == 10:
        assert worst <= 5, "where all fail alike, leaving out mends nothing"
    else:
        assert worst == min(bad, 5)
    if bad <= 5:
        assert gateway.errors(15.0, 39.0) < 0.005


def test_panic_uses_the_ejected_ones_and_fills_the_good_one_first() -> None:
    """With probes failing at nine of ten, what the last one cannot take goes to those that answer none."""
    world, servers, gateway = world_of(10)
    for server in servers[1:]:
        server.ready = False
    world.run_until(13.0)
    assert gateway.policy.available == 1
    gateway.offer(50.0, 20.0)
    world.run_until(21.0)
    assert gateway.errors(13.0, 20.0) == 0.0
    assert sum(server.attempts for server in servers[1:]) == 0
    assert gateway.decisions["panic"] == 0
    servers[0].ready = False
    world.run_until(24.0)
    assert gateway.policy.available == 0
    gateway.offer(50.0, 30.0)
    world.run_until(31.0)
    assert gateway.errors(24.0, 30.0) == 0.0, "the probes were wrong"
    assert all(server.attempts > 0 for server in servers)
    assert gateway.decisions["panic"] > 0


def test_panic_prefers_what_is_in_use() -> None:
    """Two of three fail and are out: nearly every request finds the one that works."""
    ejection = EjectionOptions(max_share=1.0, base_s=60.0)
    world, servers, gateway = world_of(3, FleetOptions(name="f", ejection=ejection))
    for server in servers[1:]:
        broken(server)
    gateway.offer(100.0, 40.0)
    world.run_until(41.0)
    assert gateway.policy.available == 1
    assert gateway.errors(15.0, 40.0) < 0.005


@pytest.mark.parametrize("seed", SEEDS)
def test_a_returned_endpoint_starts_slowly(seed: int) -> None:
    """In its first second it gets a fraction of its share, after the slow start all of it."""
    world, servers, gateway = world_of(4, seed=seed)
    broken(servers[0])
    gateway.offer(400.0, 60.0)
    world.run_until(15.0)
    assert gateway.state(0) is EndpointState.EJECTED
    servers[0].fail_share = 0.0
    while gateway.state(0) is not EndpointState.HEALTHY:
        world.run_until(world.now_s + 0.01)
    back_s = world.now_s
    before = servers[0].ok
    world.run_until(back_s + 1.0)
    first = servers[0].ok - before
    world.run_until(back_s + 15.0)
    before = servers[0].ok
    world.run_until(back_s + 20.0)
    later = (servers[0].ok - before) / 5.0
    assert 0 < first < 0.6 * later
    assert later == pytest.approx(100.0, rel=0.2)


def test_gateways_do_not_return_at_once() -> None:
    """Twenty gateways that ejected an endpoint in the same moment come back to it over a second."""
    world = World(5)
    servers = [Server(world) for _ in range(4)]
    gateways = [Gateway(world, servers, OPTIONS, seed) for seed in range(20)]
    world.run_until(10.0)
    broken(servers[0])
    for gateway in gateways:
        gateway.offer(40.0, 30.0)
    world.run_until(16.0)
    assert all(gateway.state(0) is EndpointState.EJECTED for gateway in gateways)
    servers[0].fail_share = 0.0
    world.run_until(29.0)
    out = [
        next(t for t, a, s, _ in g.states if a == address(0) and s is EndpointState.EJECTED) for g in gateways
    ]
    back = [
        max(t for t, a, s, _ in g.states if a == address(0) and s is EndpointState.HEALTHY) for g in gateways
    ]
    lasted = sorted(until - since for since, until in zip(out, back, strict=True))
    assert lasted[0] >= 10.0
    assert lasted[-1] <= 11.0
    assert lasted[-1] - lasted[0] > 0.6
    assert max(b - a for a, b in pairwise(lasted)) < 0.3
    assert servers[0].most < 3 * max(server.most for server in servers[1:])


def test_load_goes_where_it_is_served_faster_than_in_turn() -> None:
    """With one of four endpoints at a fifth of the speed, the worst waits are far shorter than in turn."""
    tails = {}
    for how in ("policy", "in turn"):
        world, servers, gateway = world_of(4)
        servers[0].service_s *= 5
        if how == "in turn":
            _in_turn(gateway)
        gateway.offer(300.0, 40.0, within_s=5.0)
        world.run_until(46.0)
        ordered = sorted(gateway.seconds)
        tails[how] = ordered[int(0.95 * len(ordered))]
        if how == "policy":
            assert gateway.errors(10.0, 40.0) == 0.0
            assert servers[0].ok < 0.6 * servers[1].ok
    assert tails["policy"] < 0.6 * tails["in turn"]


def _in_turn(gateway: Gateway) -> None:
    turn = 0

    def pick(now_s: float, **_: object) -> object:
        nonlocal turn
        turn += 1
        return address(turn % len(gateway.servers))

    gateway.policy.pick = pick  # type: ignore[method-assign, assignment]


def _goodput(limit: ConcurrencyOptions, runs: int, *, fixed: bool, seed: int) -> tuple[float, float]:
    """Return answers per second and their mean seconds, of one server with more clients than it can serve."""
    world, servers, gateway = world_of(
        1, FleetOptions(name="f", concurrency=limit), seed=seed, runs=runs, fixed=fixed, service_s=runs / 200
    )
    gateway.clients(100, 30.0, 60.0)
    world.run_until(20.0)
    before, server = servers[0].ok, servers[0]
    server.report()
    waited_s, ran_s, count = 0.0, 0.0, 0
    said: list[tuple[float, float, int]] = []
    gateway.policy.queue_reported = _listening(gateway, said)  # type: ignore[method-assign]
    world.run_until(30.0)
    for wait_s, compute_s, n in said:
        waited_s, ran_s, count = waited_s + wait_s * n, ran_s + compute_s * n, count + n
    return (server.ok - before) / 10.0, waited_s / max(1e-9, ran_s)


def _listening(gateway: Gateway, said: list[tuple[float, float, int]]) -> Callable[..., None]:
    reported = gateway.policy.queue_reported

    def listen(where: object, wait_s: float, compute_s: float, count: int, now_s: float) -> None:
        said.append((wait_s, compute_s, count))
        reported(where, wait_s, compute_s, count, now_s)  # type: ignore[arg-type]

    return listen


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("runs", [1, 4, 24])
def test_the_limit_finds_what_serves_most(runs: int, fixed: bool) -> None:
    """Within a tenth of the best static limit's answers, and with no longer queue than was aimed at."""
    served, ratio = _goodput(ConcurrencyOptions(), runs, fixed=fixed, seed=1)
    best = max(
        _goodput(ConcurrencyOptions(adaptive=False, initial=n), runs, fixed=fixed, seed=1)[0]
        for n in (runs, 2 * runs, 4 * runs)
    )
    assert served >= 0.9 * best
    assert ratio == pytest.approx(1.0, abs=0.4 if runs > 1 else 1.2)


@pytest.mark.parametrize("change", [3.0, 1 / 3])
def test_the_limit_follows_a_change_of_capacity(change: float) -> None:
    """Ten seconds after an endpoint can do three times as much, or a third, its limit is right again."""
    world, servers, gateway = world_of(1, runs=12, service_s=0.1)
    gateway.clients(120, 50.0, 60.0)
    world.run_until(40.0)
    assert _limit(gateway) == pytest.approx(24, rel=0.2)
    servers[0].runs = round(12 * change)
    world.run_until(50.0)
    assert _limit(gateway) == pytest.approx(24 * change, rel=0.25)


def _limit(gateway: Gateway) -> int:
    (view,) = gateway.policy.views()
    return view.limit


def test_gateways_share_an_endpoint() -> None:
    """Two gateways that both have too much to do keep its queue short together, and neither is starved."""
    world = World(3)
    servers = [Server(world, runs=8, service_s=0.1)]
    gateways = [Gateway(world, servers, OPTIONS, seed) for seed in range(2)]
    for gateway in gateways:
        gateway.clients(60, 60.0, 60.0)
    world.run_until(60.0)
    limits = [_limit(gateway) for gateway in gateways]
    assert sum(limits) == pytest.approx(16, rel=0.4)
    assert min(limits) > 0.4 * max(limits)


def test_hedges_are_few_and_after_the_usual_time() -> None:
    """However slow everything becomes, two in a hundred are hedged at most."""
    world, _, gateway = world_of(2, FleetOptions(name="f", hedging=HedgingOptions(enabled=True)))
    policy, hedges = gateway.policy, 0
    for number in range(20_000):
        policy.request_began()
        seconds = world.dice.expovariate(100.0) * (1.0 if number < 10_000 else 20.0)
        after_s = policy.hedge_after_s("m")
        if after_s is not None and seconds > after_s:
            hedges += policy.may_hedge()
        policy.note_latency("m", seconds)
        assert hedges <= 0.02 * (number + 1)
    assert hedges > 300


def test_a_client_in_a_hurry_harms_no_endpoint() -> None:
    """Deadlines shorter than answers take eject nothing, though most requests miss them."""
    world, _, gateway = world_of(4, OPTIONS)
    gateway.offer(200.0, 20.0)
    world.run_until(20.0)
    gateway.offer(200.0, 60.0, within_s=0.005)
    world.run_until(61.0)
    assert gateway.errors(20.0, 60.0) > 0.5
    assert not [s for _, _, s, _ in gateway.states if s is EndpointState.EJECTED]


def test_what_fails_everywhere_alike_ejects_nothing() -> None:
    """Two in five requests are poison: taking endpoints out would mend nothing."""
    retry = RetryOptions(attempts=1)
    ejection = EjectionOptions(consecutive=50)
    world, servers, gateway = world_of(4, FleetOptions(name="f", retry=retry, ejection=ejection))
    for server in servers:
        server.fail_share = 0.4
    gateway.offer(200.0, 40.0)
    world.run_until(41.0)
    assert not [s for _, _, s, _ in gateway.states if s is EndpointState.EJECTED]


def test_an_endpoint_that_stays_bad_is_tried_ever_less() -> None:
    """Each return costs one failure, and each ejection lasts longer, to the longest."""
    ejection = EjectionOptions(base_s=2.0, max_s=8.0, jitter_share=0.0)
    world, servers, gateway = world_of(4, FleetOptions(name="f", ejection=ejection))
    broken(servers[0])
    gateway.offer(200.0, 70.0)
    world.run_until(70.0)
    times = [(t, s) for t, a, s, _ in gateway.states if a == address(0) and t > 10.0]
    out = [t for t, s in times if s is EndpointState.EJECTED]
    back = [t for t, s in times if s is EndpointState.HEALTHY]
    lasted = [round(b - o, 3) for o, b in zip(out, back, strict=False)]
    assert lasted[:4] == [2.0, 4.0, 6.0, 8.0]
    assert set(lasted[4:]) == {8.0}
    assert servers[0].attempts <= 5 + 16 + 3 * len(out)
