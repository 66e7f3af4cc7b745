"""What is counted of fleets, and what disappears with an endpoint."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry

from gateway.core.remote import Address, EndpointState, EndpointView, Outcome
from gateway.telemetry.metrics import render_families
from gateway.telemetry.remote_metrics import RemoteMetrics
from tests.telemetry.builders import Samples

A, B = Address("10.0.0.1", 8001), Address("::1", 8001)
AT_A = {"fleet": "f", "endpoint": "10.0.0.1:8001"}
AT_B = {"fleet": "f", "endpoint": "[::1]:8001"}


class Page:
    """RemoteMetrics of one fleet whose endpoints a test sets."""

    def __init__(self, *views: EndpointView) -> None:
        self.show(views)
        self.metrics = RemoteMetrics(lambda: {"f": self.views})

    def show(self, views: Iterable[EndpointView]) -> None:
        self.views = list(views)

    def read(self) -> Samples:
        registry = CollectorRegistry()
        registry.register(self.metrics)
        return Samples(render_families(list(registry.collect()), "").body)


def view(address: Address, state: EndpointState = EndpointState.HEALTHY) -> EndpointView:
    return EndpointView(address=address, state=state, inflight=3, limit=16)


def test_attempts_are_counted_and_timed_by_endpoint_and_outcome() -> None:
    """Each attempt once, under how it ended."""
    page = Page(view(A), view(B))
    for seconds in (0.002, 0.2):
        page.metrics.on_attempt("f", A, Outcome.OK, seconds)
    page.metrics.on_attempt("f", B, Outcome.TIMED_OUT, 1.0)
    samples = page.read()
    assert samples.value("gateway_remote_attempts_total", **AT_A, outcome="ok") == 2
    assert samples.value("gateway_remote_attempts_total", **AT_B, outcome="timed_out") == 1
    assert samples.value("gateway_remote_attempt_seconds_sum", **AT_A, outcome="ok") == 0.202
    assert samples.value("gateway_remote_attempt_seconds_bucket", **AT_A, outcome="ok", le="0.0025") == 1


def test_decisions_are_counted() -> None:
    """By what was decided."""
    page = Page()
    for decision in ("retry", "retry", "hedge_won"):
        page.metrics.on_decision("f", decision)
    samples = page.read()
    assert samples.value("gateway_remote_decisions_total", fleet="f", decision="retry") == 2
    assert samples.value("gateway_remote_decisions_total", fleet="f", decision="hedge_won") == 1


def test_an_endpoint_is_in_exactly_one_state() -> None:
    """All states are there, so that an alert sees the one that it asks about begin."""
    page = Page(view(A, EndpointState.EJECTED))
    page.metrics.on_endpoint("f", A, EndpointState.HEALTHY, "")
    page.metrics.on_endpoint("f", A, EndpointState.EJECTED, "5 failures in a row")
    samples = page.read()
    name = "gateway_remote_endpoint_state"
    states = {state: samples.value(name, **AT_A, state=state.value) for state in EndpointState}
    assert states == {state: float(state is EndpointState.EJECTED) for state in EndpointState}
    assert samples.value("gateway_remote_inflight_attempts", **AT_A) == 3
    assert samples.value("gateway_remote_attempt_limit", **AT_A) == 16
    assert samples.value("gateway_remote_ejections_total", **AT_A) == 1


def test_what_is_gone_disappears() -> None:
    """Every series of an endpoint goes with it; what its last attempts add does not bring it back."""
    page = Page(view(A), view(B))
    for address in (A, B):
        page.metrics.on_attempt("f", address, Outcome.OK, 0.1)
        page.metrics.on_endpoint("f", address, EndpointState.EJECTED, "")
    page.read()
    page.show([view(A)])
    page.metrics.on_attempt("f", B, Outcome.CANCELLED, 0.1)
    samples = page.read()
    labels = [labels for name in samples.names() for labels in samples.labels(name)]
    assert {label["endpoint"] for label in labels} == {"10.0.0.1:8001"}
    page.show([view(A), view(B)])
    assert page.read().value("gateway_remote_ejections_total", **AT_B) == 0


def test_endpoints_that_come_and_go_unseen_take_no_memory() -> None:
    """Without a scrape series are bounded, too."""
    page = Page(view(A))
    page.metrics.on_attempt("f", A, Outcome.OK, 0.1)
    for number in range(5000):
        page.metrics.on_attempt("f", Address("10.0.0.9", number), Outcome.OK, 0.1)
        page.metrics.on_endpoint("f", Address("10.0.0.9", number), EndpointState.EJECTED, "")
    assert len(page.metrics._attempts) <= 1024
    assert len(page.metrics._ejections) <= 1024
    assert page.read().value("gateway_remote_attempts_total", **AT_A, outcome="ok") == 1
