"""Statistics of model versions as protobuf and JSON; every duration is there, zero or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway._proto import open_inference_pb2 as pb
from gateway.protocol.message_json import message_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.interfaces import ServedVersion
    from gateway.core.statistics import (
        BatchSizeStatistics,
        DurationCount,
        ResponseStatistics,
        VersionStatistics,
    )
    from gateway.core.types import Device

_MEMORY_TYPES: Final = {"cpu": "CPU", "cuda": "GPU"}


def statistics_message(served: Sequence[ServedVersion]) -> pb.ModelStatisticsResponse:
    """Return the counters of `served`, in that order; nanoseconds, `last_inference` in milliseconds."""
    return pb.ModelStatisticsResponse(model_stats=[_version(version) for version in served])


def statistics_json(served: Sequence[ServedVersion]) -> dict[str, Any]:
    """Return the same as a JSON object, integers as numbers."""
    return message_json(statistics_message(served))


def _version(served: ServedVersion) -> pb.ModelStatistics:
    counters = served.statistics
    return pb.ModelStatistics(
        name=served.id.model,
        version=str(served.id.number),
        last_inference=counters.last_inference_ms,
        inference_count=counters.inference_count,
        execution_count=counters.execution_count,
        inference_stats=_inference(counters),
        batch_stats=[_batch_size(rows, counters.batch_sizes[rows]) for rows in sorted(counters.batch_sizes)],
        memory_usage=[_memory(device, nbytes) for device, nbytes in served.memory],
        response_stats={str(place): _response(times) for place, times in counters.responses.items()},
    )


def _inference(counters: VersionStatistics) -> pb.InferStatistics:
    return pb.InferStatistics(
        success=_duration(counters.success),
        fail=_duration(counters.fail),
        queue=_duration(counters.queue),
        compute_input=_duration(counters.compute_input),
        compute_infer=_duration(counters.compute_infer),
        compute_output=_duration(counters.compute_output),
        # There is no response cache; clients read the counts without asking whether they are there.
        cache_hit=pb.StatisticDuration(),
        cache_miss=pb.StatisticDuration(),
    )


def _batch_size(rows: int, times: BatchSizeStatistics) -> pb.InferBatchStatistics:
    return pb.InferBatchStatistics(
        batch_size=rows,
        compute_input=_duration(times.compute_input),
        compute_infer=_duration(times.compute_infer),
        compute_output=_duration(times.compute_output),
    )


def _response(times: ResponseStatistics) -> pb.InferResponseStatistics:
    return pb.InferResponseStatistics(
        compute_infer=_duration(times.compute_infer),
        compute_output=_duration(times.compute_output),
        success=_duration(times.success),
        fail=_duration(times.fail),
        empty_response=_duration(times.empty_response),
        cancel=_duration(times.cancel),
    )


def _memory(device: Device, nbytes: int) -> pb.MemoryUsage:
    kind = _MEMORY_TYPES.get(device.kind, device.kind.upper())
    return pb.MemoryUsage(type=kind, id=device.ordinal, byte_size=nbytes)


def _duration(value: DurationCount) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=value.count, ns=value.ns)
