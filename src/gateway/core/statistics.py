"""Running counters of one model version, as the protocol's statistics extension reports them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class DurationCount:
    """How often something happened and how long it took in total."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        """Add `count` happenings that took `ns` nanoseconds together."""
        self.count += count
        self.ns += ns


@dataclass
class BatchSizeStatistics:
    """Times of the runs of one batch size."""

    compute_input: DurationCount = field(default_factory=DurationCount)
    compute_infer: DurationCount = field(default_factory=DurationCount)
    compute_output: DurationCount = field(default_factory=DurationCount)


@dataclass
class ResponseStatistics:
    """Times of the responses of decoupled requests that came at one place in their stream.

    Attributes:
        compute_infer: making the response, or finding that there is none.
        compute_output: fetching its outputs.
        success: responses made, with both times.
        fail: failures in place of a response.
        empty_response: ends of streams in place of a response.
        cancel: cancellations in place of a response, with the time spent on it and on letting the run go.
    """

    compute_infer: DurationCount = field(default_factory=DurationCount)
    compute_output: DurationCount = field(default_factory=DurationCount)
    success: DurationCount = field(default_factory=DurationCount)
    fail: DurationCount = field(default_factory=DurationCount)
    empty_response: DurationCount = field(default_factory=DurationCount)
    cancel: DurationCount = field(default_factory=DurationCount)


@dataclass
class VersionStatistics:
    """Counters of one model version; written on the event loop only.

    Attributes:
        last_inference_ms: wall clock of the last request, milliseconds since the epoch.
        inference_count: rows answered well.
        execution_count: runs of the backend.
        success: requests answered well, with their whole time from arrival in the queue to the answer.
        fail: requests that failed, were refused, expired or cancelled.
        queue: time in queue, per request answered well.
        compute_input: as the batch's, counted for each of its requests.
        compute_infer: likewise.
        compute_output: likewise.
        batch_sizes: by rows of the run.
        responses: of a decoupled model, by the response's place in its stream, from 0; the first ones only.
        close_reasons: runs by why the batch was closed.
        rejected: requests that never formed a batch, by the error's class name.
        pad_elements: elements run that were padding.
        elements: elements run in total.
    """

    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: DurationCount = field(default_factory=DurationCount)
    fail: DurationCount = field(default_factory=DurationCount)
    queue: DurationCount = field(default_factory=DurationCount)
    compute_input: DurationCount = field(default_factory=DurationCount)
    compute_infer: DurationCount = field(default_factory=DurationCount)
    compute_output: DurationCount = field(default_factory=DurationCount)
    batch_sizes: dict[int, BatchSizeStatistics] = field(default_factory=dict)
    responses: dict[int, ResponseStatistics] = field(default_factory=dict)
    close_reasons: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    pad_elements: int = 0
    elements: int = 0
