"""What every part of the configuration is made of."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values are not changed after reading.

    What is written below an attribute describes it in the reference; `scripts/generate_config_docs.py` has it
    read from the sources, which every start would pay for.
    """

    # Validators are built when a whole file is first read: none for sections that are not in it alone.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    def given(self) -> dict[str, Any]:
        """Return the fields that the file set, as attribute values."""
        return {name: getattr(self, name) for name in self.model_fields_set}
