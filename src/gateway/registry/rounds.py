"""Remembers by model what the last look at it came upon, and forgets the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection

Key = TypeVar("Key")
Value = TypeVar("Value")


class RoundMemo(Generic[Key, Value]):
    """Values by model and key. Used by one thread at a time.

    Bounded by what exists: after `keep_round` a model that was looked at has only what was asked for or put
    in that round, and a model that is gone has nothing.
    """

    def __init__(self) -> None:
        self._known: dict[str, dict[Key, Value]] = {}
        self._used: dict[str, dict[Key, Value]] = {}

    def __len__(self) -> int:
        """Return how many values are kept."""
        return sum(len(values) for by_model in (self._known, self._used) for values in by_model.values())

    def get(self, model: str, key: Key) -> Value | None:
        """Return the value of `key`, None when there is none; it stays for another round."""
        for values in (self._used.get(model, {}), self._known.get(model, {})):
            if key in values:
                self.put(model, key, values[key])
                return values[key]
        return None

    def put(self, model: str, key: Key, value: Value) -> None:
        """Keep `value`, in place of what was under `key`."""
        self._used.setdefault(model, {})[key] = value

    def keep_round(self, looked_at: Collection[str], existing: Collection[str]) -> None:
        """Forget, of the models looked at, what was not used since the last call; and models not existing."""
        for model in looked_at:
            self._known[model] = self._used.get(model, {})
        self._used = {}
        self._known = {model: values for model, values in self._known.items() if values and model in existing}
