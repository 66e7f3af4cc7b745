"""Which requests are traced."""

from collections.abc import Mapping

from gateway.core.types import TraceContext
from gateway.telemetry.options import TracingOptions
from gateway.telemetry.trace_sampler import TraceSampler

SAMPLED = TraceContext(1, 2, sampled=True)
UNSAMPLED = TraceContext(1, 2, sampled=False)


class Dice:
    """Gives the number it shows."""

    def __init__(self, shows: float = 0.0) -> None:
        self.shows = shows

    def __call__(self) -> float:
        return self.shows


def sampler(ratio: float = 0.25, dice: Dice | None = None) -> TraceSampler:
    return TraceSampler(TracingOptions(endpoint="http://c/v1/traces", sample_ratio=ratio), dice or Dice())


def values(level: str = "TIMESTAMPS", rate: int = 4, count: int = -1) -> Mapping[str, tuple[str, ...]]:
    return {"trace_level": (level,), "trace_rate": (str(rate),), "trace_count": (str(count),)}


def test_the_ratio_decides_for_requests_without_a_context() -> None:
    """A number below the ratio is traced, one at it is not."""
    dice = Dice(0.2499)
    chosen = sampler(0.25, dice)
    assert chosen.decide("m", None)
    dice.shows = 0.25
    assert not chosen.decide("m", None)


def test_the_callers_flag_decides_both_ways() -> None:
    """Neither ratio 0 nor ratio 1 overrules a caller."""
    assert sampler(0.0).decide("m", SAMPLED)
    assert not sampler(1.0).decide("m", UNSAMPLED)


def test_without_an_endpoint_nothing_is_traced() -> None:
    """Tracing that has nowhere to send spans is off, whatever callers say."""
    off = TraceSampler(TracingOptions(sample_ratio=1.0), Dice())
    assert off.start_values()["trace_level"] == ("OFF",)
    assert not off.decide("m", SAMPLED)


def test_start_values_name_the_nearest_rate() -> None:
    """A ratio is shown as 1 in N."""
    assert sampler(0.01).start_values() == {
        "trace_level": ("TIMESTAMPS",),
        "trace_rate": ("100",),
        "trace_count": ("-1",),
    }


def test_an_untouched_rate_keeps_the_exact_ratio() -> None:
    """Changing the level does not round the configured ratio to 1 in N."""
    dice = Dice(0.32)
    chosen = sampler(0.3, dice)  # 1 in 3 would trace this one
    chosen.changed("", {**chosen.start_values(), "trace_level": ("TIMESTAMPS",)})
    assert not chosen.decide("m", None)


def test_a_changed_rate_is_followed() -> None:
    """One in two traces a number below a half."""
    chosen = sampler(0.01, Dice(0.49))
    chosen.changed("", values(rate=2))
    assert chosen.decide("m", None)


def test_level_off_stops_callers_too() -> None:
    """The operator's switch wins over a sampled flag."""
    chosen = sampler()
    chosen.changed("", values(level="OFF"))
    assert not chosen.decide("m", SAMPLED)


def test_a_count_ends_tracing() -> None:
    """After the count is used up nothing is traced, and unsampled requests use nothing of it."""
    chosen = sampler()
    chosen.changed("", values(count=2))
    assert [chosen.decide("m", c) for c in (UNSAMPLED, None, SAMPLED, None, SAMPLED)] == [
        False,
        True,
        True,
        False,
        False,
    ]


def test_a_models_settings_are_its_own() -> None:
    """Switching one model off leaves the others on."""
    chosen = sampler()
    chosen.changed("a", values(level="OFF"))
    assert not chosen.decide("a", SAMPLED)
    assert chosen.decide("b", SAMPLED)


def test_a_change_of_the_servers_settings_reaches_models_that_have_their_own() -> None:
    """Settings in force for such a model are looked up again."""
    chosen = sampler()
    chosen.changed("a", values())
    chosen.follow(lambda model: values(level="OFF"))
    chosen.changed("", values(level="OFF"))
    assert not chosen.decide("a", SAMPLED)


def test_a_model_without_settings_of_its_own_follows_the_servers_again() -> None:
    """Nothing is kept of it: it draws on the server's count as any other model does."""
    chosen = sampler()
    chosen.follow(lambda model: values(level="OFF"))
    chosen.changed("a", values(level="OFF"))
    chosen.changed("a", {})
    chosen.changed("", values(count=1))
    assert [chosen.decide(model, SAMPLED) for model in ("a", "b")] == [True, False]


def test_taking_back_what_was_never_set_is_harmless() -> None:
    """A model may be reported to have no settings twice."""
    chosen = sampler()
    chosen.changed("a", {})
    assert chosen.decide("a", SAMPLED)
