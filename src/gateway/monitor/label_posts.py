"""Labels that come over gRPC: read, joined, and durable before they are answered."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from gateway._proto import prediction_log_pb2 as pb
from gateway.core.errors import InvalidRequest
from gateway.monitor.labels.label import MAX_BATCH, Label, Parsed, Refused, Why, checked

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.monitor.engine import Engine
    from gateway.monitor.parts import Parts

MAX_MODEL = 128


class LabelPosts:
    """Serves `Labels.Post` of protos/prediction_log.proto.

    Args:
        engine: that runs the parts.
        parts: of which the performance part takes the labels.
        wall_s: wall clock.
    """

    def __init__(self, engine: Engine, parts: Parts, wall_s: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._parts = parts
        self._wall_s = wall_s

    async def post(self, batch: pb.LabelBatch) -> pb.LabelReply:
        """Join labels; durable when it returns.

        Raises:
            InvalidRequest: it names no model.
            StoreError: they could not be made durable: post them again.
        """
        if not 0 < len(batch.model) <= MAX_MODEL:
            raise InvalidRequest("labels need the name of a model")
        parsed = parsed_batch(batch)
        reply = await self._engine.call(lambda: self._parts.performance.post(parsed, self._wall_s()))
        await asyncio.get_running_loop().run_in_executor(None, self._engine.checkpoint)
        return pb.LabelReply(
            accepted=reply.accepted,
            refused=[pb.LabelReply.Refused(index=one.index, reason=one.why.value) for one in reply.refused],
        )


def parsed_batch(batch: pb.LabelBatch) -> Parsed:
    """Return the labels of a message, unusable ones refused."""
    taken: list[tuple[int, Label]] = []
    refused: list[Refused] = []
    for index, sent in enumerate(batch.labels):
        kind = sent.WhichOneof("value")
        label = Label(
            id=sent.id.encode(),
            row=sent.row,
            value=sent.category if kind == "category" else sent.number,
            at_ns=sent.at_ns,
            source=sent.source,
            revision=sent.revision,
            weight=sent.weight or 1.0,
        )
        why = Why.TOO_MANY if index >= MAX_BATCH else (Why.VALUE if kind is None else checked(label))
        if why is None:
            taken.append((index, label))
        else:
            refused.append(Refused(index, why))
    return Parsed(batch.model, tuple(taken), tuple(refused))
