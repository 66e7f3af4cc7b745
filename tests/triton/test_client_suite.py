"""What clients are promised holds where every model runs on a Triton server behind the gateway.

The tests are those of `tests/acceptance`, with a `zoo` that is a gateway in front of a real tritonserver.
"""

from __future__ import annotations

from typing import Final

from tests.acceptance import (
    test_datatypes,
    test_describe,
    test_infer,
    test_refusals,
    test_stream,
    test_waiting,
)

OTHERWISE: Final = {
    "test_bytes_that_are_no_text": "Triton takes them: test_bytes_need_not_be_text",
    "test_model_metadata": "the platform is Triton's: test_metadata_is_tritons",
    "test_model_config": "so is the configuration: test_the_config_has_tritons_rows",
    "test_memory_of_a_model": "it has none here",
    "test_scalars": "Triton has no tensors of rank 0",
    "test_a_request_cancelled_while_it_runs_harms_nobody": "its model has one",
    "test_a_run_longer_than_the_client_waits": "likewise",
    "test_the_timeout_parameter_bounds_the_time_in_queue": "likewise",
}
"""What is not the same on Triton, and why; all others are."""

_MODULES: Final = (test_datatypes, test_describe, test_infer, test_refusals, test_stream, test_waiting)
_FIXTURES: Final = ("headers", "other", "stream")

for _module in _MODULES:
    globals().update(
        {
            name: value
            for name, value in vars(_module).items()
            if (name.startswith("test_") and callable(value) and name not in OTHERWISE) or name in _FIXTURES
        }
    )


def test_what_is_left_out_is_there() -> None:
    """A test that was renamed is not left out for a reason that was another's."""
    assert OTHERWISE.keys() <= {name for module in _MODULES for name in vars(module)}
