"""Load ONNX files: inspect, choose providers, create the session, settle the signature."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from gateway.backends.onnxruntime.cpus import usable_cpus
from gateway.backends.onnxruntime.failures import is_of_the_backend, one_line
from gateway.backends.onnxruntime.huge_pages import LEAST_BYTES, gather, large_mappings
from gateway.backends.onnxruntime.inspected import Inspections
from gateway.backends.onnxruntime.inspector import InspectionLimits
from gateway.backends.onnxruntime.load_thread import giving_way
from gateway.backends.onnxruntime.memory import MemoryMeter, return_freed
from gateway.backends.onnxruntime.model import Loaded, OnnxRuntimeModel, hidden_paths
from gateway.backends.onnxruntime.notices import Notices
from gateway.backends.onnxruntime.options import BACKEND, PLATFORM, OnnxRuntimeOptions, parse_options
from gateway.backends.onnxruntime.providers import CPU_PLAN, ProviderPlan, lost_providers, plan_providers
from gateway.backends.onnxruntime.row_check import Rows, check_rows
from gateway.backends.onnxruntime.runner import Runner, RunSettings
from gateway.backends.onnxruntime.session import (
    CudaLibraries,
    Session,
    available_providers,
    open_session,
    pool_threads,
    run_options,
    thread_counts,
)
from gateway.backends.onnxruntime.signature import Claim, Reading, read_signature
from gateway.core.errors import BackendUnavailable, ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import TypeAlias

    from gateway.backends.onnxruntime.graph import GraphReport
    from gateway.core.interfaces import LoadedModel
    from gateway.core.options import LoadOptions, ModelSpec
    from gateway.core.types import Array, Artifact

    WarmUpRun: TypeAlias = Callable[[LoadedModel, ModelSpec], Awaitable[list[str]]]

_HOW_TO_DECLARE: Final = "declare batch_axes to batch it, or max_batch_size 0 to silence this"


@dataclass(frozen=True, slots=True)
class _Job:
    """One load under way."""

    artifact: Artifact
    load: LoadOptions
    options: OnnxRuntimeOptions
    report: GraphReport
    reading: Reading


class OnnxRuntimeBackend:
    """A `Backend` for ONNX files.

    Args:
        notice: told what this process could not use and why, each sentence once (see `Notices`); called from
            any thread.
    """

    name = BACKEND
    platform = PLATFORM

    def __init__(self, notice: Callable[[str], None] | None = None) -> None:
        self._notices = Notices(notice)
        self._cuda = CudaLibraries()
        self._meter = MemoryMeter()
        self._inspections = Inspections()

    async def load(self, artifact: Artifact, options: LoadOptions) -> OnnxRuntimeModel:
        """Load one version on one device; the event loop goes on meanwhile.

        The file is inspected in a child process before any native code sees it. A native load cannot be
        stopped: when cancelled, this waits for it, closes what it made, and then raises.

        Raises:
            ModelLoadError: with the failing step and the reason.
        """
        try:
            job = await self._prepare(artifact, options)
        except ModelLoadError as error:
            raise ModelLoadError(f"model '{options.spec.name}': {error}") from error
        opening = asyncio.ensure_future(asyncio.to_thread(self._open, job))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            await _discard(opening)
            raise

    def counting(self, warm_up: WarmUpRun) -> WarmUpRun:
        """Return a warm-up that adds what its runs make a model allocate, and keep, to its `memory_bytes`."""

        async def counted(model: LoadedModel, spec: ModelSpec) -> list[str]:
            with self._meter.measuring(model.device) as measured:
                warnings = await warm_up(model, spec)
            model.memory_bytes += measured.nbytes
            return warnings

        return counted

    async def _prepare(self, artifact: Artifact, load: LoadOptions) -> _Job:
        options = parse_options(load.spec.backend_options)
        limits = InspectionLimits(
            options.allow_custom_ops,
            options.max_model_bytes,
            options.inspection_timeout_s,
            options.optional_inputs,
        )
        report = await self._inspections.inspect(artifact, limits)
        return _Job(artifact, load, options, report, read_signature(report, load.spec))

    def _open(self, job: _Job) -> OnnxRuntimeModel:
        """Make the model; in a worker thread, whose niceness is that of the threads which run it."""
        try:
            plan = self._plan(job)
            threads = thread_counts(job.options, usable_cpus(), job.load.instances or 1)
            if plan.device.kind == "cpu" and job.report.total_bytes >= LEAST_BYTES:
                started = pool_threads(job.options, threads)
                runner, loaded = giving_way(lambda: self._opened(job, plan, threads), started)
            else:  # a device's libraries start threads at any time; a small model is loaded in milliseconds
                runner, loaded = self._opened(job, plan, threads)
            return OnnxRuntimeModel(runner, loaded)
        except ModelLoadError as error:
            raise ModelLoadError(f"model '{job.load.spec.name}': {error}") from error
        finally:
            return_freed()

    def _plan(self, job: _Job) -> ProviderPlan:
        plan = plan_providers(job.options, job.load.device, available_providers(), self._cuda.problem)
        for notice in plan.notices:
            self._notices.say(notice)
        if plan.device.kind == "cuda":
            self._cuda.load()
        return plan

    def _opened(self, job: _Job, plan: ProviderPlan, threads: tuple[int, int]) -> tuple[Runner, Loaded]:
        """Create the session and settle the signature."""
        instances = job.load.instances or 1
        large = job.report.total_bytes >= LEAST_BYTES
        before = large_mappings() if large else []
        with self._meter.measuring(plan.device) as measured:
            session, plan = self._session(job, plan, threads)
            _check_unchanged(session, job.reading)
            job = replace(job, reading=_with_inferred_ranks(session, job))
            bind = job.options.io_binding if job.options.io_binding is not None else plan.device.kind != "cpu"
            settings = RunSettings(plan.device, bind, run_options(job.options, plan))
            reading = _checked_rows(job, Runner(session, job.reading.signature, settings))
        if large:
            gather(before)
        loaded = Loaded(
            name=job.load.spec.name,
            artifact=job.artifact,
            signature=reading.signature,
            device=plan.device,
            providers=tuple(session.get_providers()),
            threads=threads,
            instances=instances,
            memory_bytes=max(job.report.total_bytes, measured.nbytes),
            overlaps=plan.device.kind != "cpu" or _leaves_a_cpu(threads, instances),
            inline=job.options.inline_runs and plan.device.kind == "cpu",
            warnings=reading.warnings,
        )
        for warning in reading.warnings:
            self._notices.say(f"model '{loaded.name}': {warning}")
        return Runner(session, reading.signature, settings), loaded

    def _session(
        self, job: _Job, plan: ProviderPlan, threads: tuple[int, int]
    ) -> tuple[Session, ProviderPlan]:
        """Create the session as planned, or on the CPU where the plan allows that."""
        try:
            session = _create(job, plan, threads)
            lost = lost_providers(plan, session.get_providers())
            if not lost:
                return session, plan
            reasons = "; ".join(f"{name}: {self._cuda.problem(name) or 'no device?'}" for name in lost)
            failure = ModelLoadError(f"ONNX Runtime could not start every provider asked for ({reasons})")
        except ModelLoadError as error:
            failure = error
        if not plan.may_fall_back or plan.device.kind == "cpu":
            raise failure
        # Created before it is said: a fault of the file itself fails here as well, and is not the device's.
        session = _create(job, CPU_PLAN, threads)
        self._notices.say(f"{plan.device} cannot be used, models run on the CPU instead: {failure}")
        return session, CPU_PLAN


def _leaves_a_cpu(threads: tuple[int, int], instances: int) -> bool:
    """Whether the callers of `instances` runs and the session's pools leave a processor idle."""
    intra, inter = threads
    return usable_cpus() > instances + (intra - 1) + (inter - 1)


async def _discard(opening: asyncio.Future[OnnxRuntimeModel]) -> None:
    """Wait for a load that nobody wants any more and close what it made."""
    try:
        model = await opening
    except ModelLoadError:
        return
    await model.aclose()


def _create(job: _Job, plan: ProviderPlan, threads: tuple[int, int]) -> Session:
    try:
        return open_session(job.artifact.model_file, job.options, plan, threads)
    except Exception as error:
        reason = f"ONNX Runtime cannot load it: {one_line(error, hidden_paths(job.artifact))}"
        if is_of_the_backend(error):
            # The cause tells who may try again that the file is not to blame.
            raise ModelLoadError(reason) from BackendUnavailable(str(error))
        raise ModelLoadError(reason) from error


def _check_unchanged(session: Session, reading: Reading) -> None:
    """Compare the session's own view with the inspection: the file must be the one inspected."""
    inputs = {i.name for i in session.get_inputs()}
    wanted = {t.name for t in reading.signature.inputs if not t.optional}
    known = {t.name for t in reading.signature.inputs}
    outputs = {o.name for o in session.get_outputs()}
    given = {t.name for t in reading.signature.outputs}
    if not wanted <= inputs <= known or not given <= outputs:
        raise ModelLoadError("the file was changed between its inspection and its loading; load it again")


def _with_inferred_ranks(session: Session, job: _Job) -> Reading:
    """Read the signature again where the file does not declare an output's rank and ONNX Runtime found it."""
    outputs = job.report.outputs
    if all(output.dims is not None for output in outputs):
        return job.reading
    # An empty shape means either a scalar or still unknown.
    found = {o.name: tuple(o.shape) or None for o in session.get_outputs()}
    ranked = tuple(o if o.dims is not None else replace(o, dims=found.get(o.name)) for o in outputs)
    return read_signature(replace(job.report, outputs=ranked), job.load.spec)


def _checked_rows(job: _Job, runner: Runner) -> Reading:
    """Give up batching where running the model shows, or leaves open, that merging changes results."""
    reading, spec = job.reading, job.load.spec
    if reading.claim is Claim.NONE or not job.options.row_check or not spec.batching.enabled:
        return reading
    names = [t.name for t in reading.signature.outputs]

    def run(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return runner.run(inputs, names).outputs

    finding = check_rows(run, reading.signature, spec)
    if finding.rows is Rows.COUPLED:
        if reading.claim is Claim.DECLARED:
            warning = f"batched as declared, though its rows influence each other: {finding.reason}"
            return replace(reading, warnings=(*reading.warnings, warning))
        return reading.unbatched(f"served unbatched: {finding.reason}; {_HOW_TO_DECLARE}")
    if finding.rows is Rows.UNKNOWN and reading.claim is Claim.GUESSED:
        reason = one_line(ValueError(finding.reason), hidden_paths(job.artifact))
        return reading.unbatched(
            f"served unbatched: its first axes have no common name, and whether rows are independent could "
            f"not be found out ({reason}); {_HOW_TO_DECLARE}"
        )
    return reading
