"""Which versions of a fleet's models are offered, as endpoints get and lose them."""

from __future__ import annotations

from gateway.registry.fleet_versions import Listing, Offer, Standing

GRACE_S = 30.0


def standing(needed: int = 1) -> Standing:
    """The model `m` of a fleet of which so many endpoints must have a version."""
    return Standing("a", "m", lambda _endpoints: needed, GRACE_S)


def listing(*, answered: int = 3, **counts: int) -> Listing:
    """Three endpoints, so many of which have version `v1`, `v2`, ... of `m`."""
    versions = {int(name[1:]): count for name, count in counts.items()}
    return Listing(endpoints=3, answered=answered, models={"m": versions} if versions else {})


def test_a_version_begins_when_enough_have_it_and_stays_while_one_does() -> None:
    """How many are enough is asked once."""
    model = standing(needed=2)
    offer = model.look(listing(v1=1), 0.0)
    assert offer.numbers == ()
    assert offer.problem == "resolve: 1 of 3 endpoints of fleet 'a' have version 1 ready, 2 are needed"
    assert model.look(listing(v1=2), 1.0) == Offer((1,))
    assert model.look(listing(v1=1), 2.0) == Offer((1,))


def test_a_version_that_is_nowhere_goes_after_a_grace() -> None:
    """It is said at once, and withdrawn only when the grace is over."""
    model = standing()
    model.look(listing(v1=1, v2=1), 0.0)
    model.look(listing(v1=1, v2=1), 10.0)
    offer = model.look(listing(v2=1), 20.0)
    assert offer == Offer((1, 2), "resolve: no endpoint of fleet 'a' has version 1 any more", 10.0 + GRACE_S)
    assert model.look(listing(v2=1), 39.9).numbers == (1, 2)
    assert model.look(listing(v2=1), 40.0) == Offer((2,))


def test_a_version_that_comes_back_in_time_stays() -> None:
    """The grace begins anew with the next loss."""
    model = standing()
    model.look(listing(v1=1), 0.0)
    model.look(listing(), 20.0)
    assert model.look(listing(v1=1), 29.0) == Offer((1,))
    assert model.look(listing(), 40.0).due_s == 29.0 + GRACE_S


def test_a_fleet_of_which_nothing_is_known_takes_nothing_away() -> None:
    """However long it is down; and there is nothing before it has answered once."""
    model = standing()
    assert model.look(listing(answered=0), 0.0).problem == "resolve: no endpoint of fleet 'a' answers"
    model.look(listing(v1=1), 1.0)
    assert model.look(listing(answered=0), 1e6).numbers == (1,)


def test_a_model_that_the_fleet_lacks_is_said_to_be_lacking() -> None:
    """In the fleet's name for it."""
    problem = "resolve: no endpoint of fleet 'a' has model 'm' ready"
    assert standing().look(listing(), 0.0) == Offer((), problem)
