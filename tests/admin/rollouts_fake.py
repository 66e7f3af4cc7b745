"""Rollouts that remember what was asked of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gateway.core.errors import NotFound, PermissionDenied
from gateway.core.rollout_control import Command, Verb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


class FakeRollouts:
    """A RolloutControl over documents that the test sets.

    Attributes:
        documents: by name.
        commands: what operators asked for.
        read: where its files stand.
    """

    def __init__(self, **documents: dict[str, Any]) -> None:
        self.documents = dict(documents)
        self.commands: list[Command] = []
        self.read: list[dict[str, Any]] = []
        self._readers: list[asyncio.Queue[dict[str, Any]]] = []
        self._changed = asyncio.Event()

    def rollouts(self) -> Sequence[dict[str, Any]]:
        return [self.documents[name] for name in sorted(self.documents)]

    def rollout(self, name: str) -> dict[str, Any]:
        if name not in self.documents:
            raise NotFound(f"no rollout '{name}'")
        return self.documents[name]

    def files(self) -> Sequence[dict[str, Any]]:
        return self.read

    def splits(self) -> Sequence[dict[str, Any]]:
        return []

    async def operate(self, command: Command) -> dict[str, Any]:
        document = self.rollout(command.rollout)
        if command.verb is Verb.APPROVE and not command.actor.is_known:
            raise PermissionDenied("nobody knows who you are")
        self.commands.append(command)
        self.change(command.rollout, last=command.verb.value)
        return document

    async def changes(self) -> AsyncIterator[dict[str, Any]]:
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._readers.append(queue)
        self._changed.set()
        try:
            while True:
                yield await queue.get()
        finally:
            self._readers.remove(queue)
            self._changed.set()

    async def until_readers(self, count: int) -> None:
        """Wait until so many read `changes`."""
        while len(self._readers) != count:
            self._changed.clear()
            await self._changed.wait()

    def change(self, name: str, /, **members: object) -> None:
        """Set members of a document and tell every reader."""
        self.documents[name].update(members)
        for queue in self._readers:
            queue.put_nowait(dict(self.documents[name]))
