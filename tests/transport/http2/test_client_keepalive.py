"""When a client pings, and when it gives its server up; the time is passed in."""

from __future__ import annotations

import math

from gateway.transport.http2.client_keepalive import ClientKeepalive


def keepalive() -> ClientKeepalive:
    """Return one that pings after 10 s and waits for 5, at 100 s."""
    return ClientKeepalive(10.0, 5.0, 100.0)


def test_a_silent_server_is_pinged_and_given_up() -> None:
    """At the times that it says before."""
    kept = keepalive()
    assert kept.next_s(100.0, busy=True) == 110.0
    assert not kept.should_ping(109.9)
    assert kept.should_ping(110.0)
    assert not kept.should_ping(111.0), "one at a time"
    assert kept.next_s(110.0, busy=True) == 115.0
    assert not kept.is_lost(114.9)
    assert kept.is_lost(115.0)


def test_anything_that_comes_is_an_answer() -> None:
    """The silence begins anew."""
    kept = keepalive()
    assert kept.should_ping(110.0)
    kept.received_s = 114.0
    assert not kept.is_lost(120.0)
    assert kept.next_s(120.0, busy=True) == 124.0


def test_without_requests_nothing_is_asked() -> None:
    """The silence of a connection that was idle does not count, nor a ping of then."""
    kept = keepalive()
    assert kept.should_ping(110.0)
    assert kept.next_s(115.0, busy=False) == math.inf
    kept.busy_s = 500.0
    assert not kept.is_lost(500.0)
    assert kept.next_s(500.0, busy=True) == 510.0


def test_servers_are_not_pinged_more_than_they_forgive() -> None:
    """While nothing is answered, the third ping comes after five minutes; an answer begins anew."""
    kept = keepalive()
    for ping_s in (110.0, 122.0):
        assert kept.should_ping(ping_s)
        kept.received_s = ping_s + 1
        assert not kept.is_lost(ping_s + 9)
    assert not kept.should_ping(400.0)
    assert kept.next_s(400.0, busy=True) == 423.0
    kept.pings = 0
    assert kept.should_ping(400.0)


def test_a_ping_whose_answer_may_take_long() -> None:
    """Once it is answered the next comes in time."""
    kept = ClientKeepalive(10.0, 60.0, 100.0)
    assert kept.should_ping(110.0)
    assert kept.next_s(110.0, busy=True) == 120.0
    assert kept.next_s(120.0, busy=True) == 170.0
    kept.received_s = 111.0
    assert not kept.is_lost(120.0)
    assert kept.next_s(120.0, busy=True) == 121.0
