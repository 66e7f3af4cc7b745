"""Padding and cutting rules that could not work are refused at load."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.errors import ModelLoadError
from gateway.core.options import BatchingOptions, CutRule, PadRule
from gateway.core.types import Datatype, ModelSignature, TensorSpec, VersionState
from gateway.models.padding import check_padding
from tests.models.stage import Stage, wanted

SIGNATURE = ModelSignature(
    (
        TensorSpec("x", Datatype.FP32, (-1, -1, 3)),
        TensorSpec("words", Datatype.INT64, (-1, -1)),
        TensorSpec("rate", Datatype.INT64, (-1,), batch_axis=None),
    ),
    (TensorSpec("y", Datatype.FP32, (-1, -1)), TensorSpec("scores", Datatype.FP32, (-1, 5))),
)
ROWS_IN = TensorSpec("x", Datatype.FP32, (-1, -1))
WHOLE_OUT = TensorSpec("y", Datatype.FP32, (-1, -1), batch_axis=None)
WHOLE_IN = TensorSpec("x", Datatype.FP32, (-1, -1), batch_axis=None)
PAD = PadRule(input="x", axis=1, buckets=(4, 8))
WORDS = PadRule(input="words", axis=1, buckets=(16,))
LONGEST = PadRule(input="x", axis=1)
CUT = CutRule(output="y", axis=1, input="x", input_axis=1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pad": (PAD,), "cut": (CUT,)},
        {"pad": (LONGEST,)},
        {"pad": (PAD,), "split_large": True},
        {"pad": (LONGEST,), "cut": (CUT,), "split_large": True},
    ],
)
def test_rules_that_work_pass(options: dict[str, Any]) -> None:
    """Padding alone, with its cut, to buckets or the longest, and with large requests where that is safe."""
    check_padding(SIGNATURE, BatchingOptions(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pad": (PadRule(input="nope", axis=1),)}, "input 'nope', axis 1: the model has no such tensor"),
        ({"pad": (PadRule(input="x", axis=3),)}, r"axis 3: the model's shape \[-1, -1, 3\] has no such axis"),
        ({"pad": (PadRule(input="x", axis=0),)}, "axis 0: this is the batch axis"),
        ({"pad": (PadRule(input="x", axis=2),)}, "axis 2: the axis is not variable"),
        ({"pad": (PadRule(input="rate", axis=0),)}, "the input has no batch axis"),
        ({"pad": (PadRule(input="x", axis=1, buckets=(8, 4)),)}, r"ascend without repeats, got \[8, 4\]"),
        ({"pad": (PadRule(input="x", axis=1, buckets=(4, 4)),)}, "must ascend without repeats"),
        ({"pad": (PAD, LONGEST)}, "'x' has more than one rule for axis 1"),
        ({"cut": (CUT,)}, "input 'x' is not padded along axis 1; padded are: none"),
        ({"pad": (PAD,), "cut": (CutRule(output="z", axis=1, input="x", input_axis=1),)}, "no such tensor"),
        ({"pad": (PAD,), "cut": (CutRule(output="y", axis=2, input="x", input_axis=1),)}, "no such axis"),
        ({"pad": (PAD,), "cut": (CutRule(output="y", axis=1, input="x", input_axis=2),)}, "x axis 1"),
        ({"pad": (PAD,), "cut": (CUT, CUT)}, "'y' has more than one rule"),
        ({"pad": (LONGEST,), "split_large": True}, "could differ along axis 1 of output 'y'"),
        ({"pad": (WORDS, LONGEST), "split_large": True}, "could differ along axis 1 of output 'y'"),
    ],
)
def test_rules_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    """The message names the rule and what is wrong with it."""
    with pytest.raises(ModelLoadError, match=message):
        check_padding(SIGNATURE, BatchingOptions(**options))


async def test_a_version_with_a_rule_that_cannot_work_fails_to_load(stage: Stage) -> None:
    """Its row says why, it is not warmed, and what was loaded of it is closed."""
    batching = BatchingOptions(pad=(PadRule(input="nope", axis=1),))
    async with stage.manager() as manager:
        manager.apply("source", [wanted("m", 1, batching=batching)])
        await manager.wait_settled()
        (row,) = manager.index()
        assert row.state is VersionState.FAILED
        assert "no such tensor" in row.reason
        assert stage.warmed == []
        assert [model.closed for model in stage.backend.loaded] == [True]


@pytest.mark.parametrize("of_input", [WHOLE_IN, ROWS_IN])
def test_a_model_without_batch_axis_has_nothing_to_pad(of_input: TensorSpec) -> None:
    """Its requests never share a batch, be it for the inputs or for the outputs."""
    with pytest.raises(ModelLoadError, match="no batch axis"):
        check_padding(ModelSignature((of_input,), (WHOLE_OUT,)), BatchingOptions(pad=(PAD,)))
