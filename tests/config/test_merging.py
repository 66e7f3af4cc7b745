"""A model's settings once its own file, the defaults and its entry are put together."""

import pytest

from gateway.config.merging import merged
from gateway.config.schema import GatewayConfig, check_config
from gateway.config.yaml_file import parse_yaml
from gateway.core.errors import ModelLoadError
from gateway.core.options import BatchingOptions, ModelSpec


def declared(rows: int = 4, **batching: int) -> ModelSpec:
    """What a config.pbtxt with `max_batch_size` makes of a model."""
    options = BatchingOptions(max_batch_rows=rows, **batching)  # type: ignore[arg-type]  # integers only
    return ModelSpec(name="m", batching=options, max_batch_size=rows)


def config(defaults: str = "", own: str = "") -> GatewayConfig:
    text = f"defaults: {{batching: {{{defaults}}}}}\nmodels: [{{name: m, path: x, batching: {{{own}}}}}]"
    return check_config(parse_yaml(text.encode(), "f.yaml"))


def batching(spec: ModelSpec, defaults: str = "", own: str = "") -> BatchingOptions:
    file = config(defaults, own)
    return merged(spec, file.defaults, file.models[0]).batching


def test_a_default_does_not_lift_the_maximum_that_a_model_declares() -> None:
    """The model's file says what it can take; a default below it still holds."""
    assert batching(declared(4), "max_batch_rows: 128").max_batch_rows == 4
    assert batching(declared(4), "max_batch_rows: 2").max_batch_rows == 2
    assert batching(ModelSpec(name="m"), "max_batch_rows: 128").max_batch_rows == 128


@pytest.mark.parametrize(
    ("allowed", "kept", "most"), [("[1, 2, 8]", (1, 2), 2), ("[8]", (), 4), ("[1, 4]", (1, 4), 4)]
)
def test_default_sizes_beyond_a_declared_maximum_are_left_out(
    allowed: str, kept: tuple[int, ...], most: int
) -> None:
    """A batch is never padded to more rows than the model's file allows."""
    found = batching(declared(4), f"allowed_rows: {allowed}")
    assert (found.allowed_rows, found.max_batch_rows) == (kept, most)


def test_an_entry_without_sizes_undoes_the_default_ones_and_their_bound() -> None:
    """What is left is the maximum that the model's file declares."""
    found = batching(declared(4), "allowed_rows: [1, 2, 8]", "allowed_rows: []")
    assert (found.allowed_rows, found.max_batch_rows) == ((), 4)


@pytest.mark.parametrize(
    "own", ["max_batch_rows: 8", "allowed_rows: [1, 8]", "allowed_rows: [1, 8], max_batch_rows: 4"]
)
def test_an_entry_beyond_a_declared_maximum_is_refused(own: str) -> None:
    """The operator is told of both numbers, and where to change them."""
    with pytest.raises(ModelLoadError, match=r"8 .*max_batch_size 4.*config\.pbtxt"):
        batching(declared(4), own=own)


@pytest.mark.parametrize("unbatched", [None, 0])
def test_a_model_without_a_declared_maximum_takes_any_entry(unbatched: int | None) -> None:
    """Neither a model without config.pbtxt nor one that is served unbatched bounds its entry."""
    spec = ModelSpec(name="m", max_batch_size=unbatched)
    assert batching(spec, own="max_batch_rows: 128").max_batch_rows == 128


def test_the_last_allowed_size_bounds_the_rows() -> None:
    """What is reported as the most rows is what is accepted."""
    assert batching(ModelSpec(name="m"), own="allowed_rows: [1, 8], max_batch_rows: 64").max_batch_rows == 8
    assert batching(ModelSpec(name="m"), "allowed_rows: [1, 8]", "max_batch_rows: 64").max_batch_rows == 8


def test_a_default_priority_beyond_the_levels_of_the_models_file_is_refused() -> None:
    """Settings from different places are checked as they come together."""
    spec = declared(4, priority_levels=2)
    assert batching(spec, own="default_priority: 2").default_priority == 2
    with pytest.raises(ModelLoadError, match="default_priority 3 is beyond priority_levels 2"):
        batching(spec, own="default_priority: 3")


def test_without_an_entry_the_defaults_alone_hold() -> None:
    """A model that the configuration does not name is merged with the defaults."""
    file = config("max_batch_rows: 128, max_delay_s: 0.5")
    assert merged(declared(4), file.defaults, None).batching == BatchingOptions(
        max_batch_rows=4, max_delay_s=0.5
    )
