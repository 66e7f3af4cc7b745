"""Reads the files that tell of a version's origin: lineage.json and MODEL_CARD.md. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

LINEAGE: Final = "lineage.json"
MODEL_CARD: Final = "MODEL_CARD.md"
MAX_BYTES: Final = 64 << 10
"""Largest lineage file; of a larger model card, what is shown."""


def read_lineage(content: bytes | None, card: bytes | None) -> Mapping[str, Any]:
    """Return what lineage.json says, and the model card under `model_card`; JSON types alone.

    What is wrong with a file is told under `lineage_problem`, in place of what it says.

    Args:
        content: of lineage.json, at most `MAX_BYTES` + 1 bytes of it; None when there is none.
        card: of MODEL_CARD.md, likewise.
    """
    told: dict[str, Any] = {}
    if content is not None:
        try:
            told.update(_object(content))
        except ValueError as error:
            told["lineage_problem"] = f"{LINEAGE} {error}"
    if card is not None:
        text = card[:MAX_BYTES].decode("utf-8", "replace")
        told["model_card"] = text + ("\n..." if len(card) > MAX_BYTES else "")
    return told


def _object(content: bytes) -> Mapping[str, Any]:
    if len(content) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES} bytes")
    try:
        # Lone surrogates and NaN pass the parser and could not be sent.
        told = json.loads(content)
        json.dumps(told, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise ValueError("is not JSON that can be shown") from None
    if not isinstance(told, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004  # of the text, as the ones above
    return told
