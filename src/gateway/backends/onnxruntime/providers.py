"""Choose the execution providers of a session, and say which could not be used and why."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.backends.onnxruntime.options import OnnxRuntimeOptions, ProviderChoice
from gateway.core.errors import ModelLoadError
from gateway.core.types import CPU, Device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

CPU_PROVIDER: Final = "CPUExecutionProvider"
CUDA_PROVIDER: Final = "CUDAExecutionProvider"
TENSORRT_PROVIDER: Final = "TensorrtExecutionProvider"
_ON_CUDA: Final = (TENSORRT_PROVIDER, CUDA_PROVIDER)
_PROVIDER_LIBRARIES: Final = {
    CUDA_PROVIDER: "libonnxruntime_providers_cuda.so",
    TENSORRT_PROVIDER: "libonnxruntime_providers_tensorrt.so",
}


@dataclass(frozen=True, slots=True)
class ProviderPlan:
    """What a session is to be created with.

    Attributes:
        providers: in order of preference, options complete; the CPU is always last.
        device: where the model then runs.
        may_fall_back: losing the accelerator is said and survived; otherwise it fails the load.
        notices: what was asked for, or would be used, and cannot be: one sentence each.
    """

    providers: tuple[ProviderChoice, ...]
    device: Device
    may_fall_back: bool
    notices: tuple[str, ...] = ()


CPU_PLAN: Final = ProviderPlan((ProviderChoice(CPU_PROVIDER),), CPU, may_fall_back=False)


def plan_providers(
    options: OnnxRuntimeOptions,
    device: Device | None,
    available: Sequence[str],
    problem: Callable[[str], str | None],
) -> ProviderPlan:
    """Choose providers for a device.

    A list that names `cpu` beside others permits falling back to it; so does no list and no device.

    Args:
        options: the model's options.
        device: where the instance group wants it; None lets this function choose.
        available: providers of this build of onnxruntime.
        problem: says why a provider's libraries do not load, None when they do.

    Raises:
        ModelLoadError: nothing that was asked for can be used.
    """
    if options.providers:
        chosen, notices = _asked(options.providers, device, available)
        may_fall_back = device is None and any(c.name == CPU_PROVIDER for c in options.providers)
    else:
        chosen, notices = _automatic(device, available, problem)
        may_fall_back = device is None
    _check_device(chosen, device, notices)
    complete = tuple(_with_options(c, options, device) for c in _with_companions(chosen, available))
    return ProviderPlan(complete, _device(complete), may_fall_back, tuple(notices))


def _asked(
    asked: Sequence[ProviderChoice], device: Device | None, available: Sequence[str]
) -> tuple[list[ProviderChoice], list[str]]:
    notices = [f"{c.name} is not in this build of onnxruntime" for c in asked if c.name not in available]
    usable = [c for c in asked if c.name in available]
    if device is not None and device.kind == "cpu":
        usable = [c for c in usable if c.name not in _ON_CUDA]
    if not usable:
        names = ", ".join(c.name for c in asked)
        raise ModelLoadError(
            f"none of the providers asked for ({names}) can be used; this build of onnxruntime has "
            f"{', '.join(available)} (the gpu extra brings CUDA)"
        )
    return usable, notices


def _automatic(
    device: Device | None, available: Sequence[str], problem: Callable[[str], str | None]
) -> tuple[list[ProviderChoice], list[str]]:
    chosen: list[ProviderChoice] = []
    notices: list[str] = []
    for name in _ON_CUDA if device is None or device.kind != "cpu" else ():
        if name not in available:
            continue
        if reason := problem(name):
            notices.append(f"{name} cannot be used: {reason}")
        else:
            chosen.append(ProviderChoice(name))
    return [*chosen, ProviderChoice(CPU_PROVIDER)], notices


def _check_device(chosen: Sequence[ProviderChoice], device: Device | None, notices: Sequence[str]) -> None:
    if device is None or device.kind == "cpu":
        return
    if device.kind != "cuda":
        raise ModelLoadError(f"device '{device}' is unknown to backend onnxruntime; it has cpu and cuda")
    if not any(c.name in _ON_CUDA for c in chosen):
        reason = (
            "; ".join(notices) or "it is not in the list, or this build of onnxruntime (see the gpu extra)"
        )
        raise ModelLoadError(f"device {device} was asked for and no CUDA provider can be used: {reason}")


def _with_companions(chosen: Sequence[ProviderChoice], available: Sequence[str]) -> list[ProviderChoice]:
    """Add what runs the operators that those chosen do not have: CUDA after TensorRT, then the CPU."""
    names = [c.name for c in chosen]
    extra = []
    if TENSORRT_PROVIDER in names and CUDA_PROVIDER not in names and CUDA_PROVIDER in available:
        extra.append(ProviderChoice(CUDA_PROVIDER))
    others = [c for c in chosen if c.name != CPU_PROVIDER]
    cpu = [c for c in chosen if c.name == CPU_PROVIDER] or [ProviderChoice(CPU_PROVIDER)]
    if names and names[0] == CPU_PROVIDER:
        return cpu  # everything runs on the first provider that can, and the CPU can run everything
    return [*others, *extra, *cpu]


def _with_options(
    choice: ProviderChoice, options: OnnxRuntimeOptions, device: Device | None
) -> ProviderChoice:
    if choice.name not in _ON_CUDA:
        return choice
    common = options.cuda if choice.name == CUDA_PROVIDER else {}
    merged = {**common, **choice.options}
    if device is not None and merged.setdefault("device_id", str(device.ordinal)) != str(device.ordinal):
        raise ModelLoadError(
            f"the provider's device_id {merged['device_id']} contradicts the instance group's device {device}"
        )
    merged.setdefault("device_id", "0")
    return ProviderChoice(choice.name, merged)


def _device(providers: Sequence[ProviderChoice]) -> Device:
    first = providers[0]
    if first.name not in _ON_CUDA:
        return CPU
    try:
        return Device("cuda", int(first.options["device_id"]))
    except ValueError:
        raise ModelLoadError(f"device_id '{first.options['device_id']}' is not a number") from None


def lost_providers(plan: ProviderPlan, actual: Sequence[str]) -> list[str]:
    """Return the providers asked for that a created session does not have."""
    return [c.name for c in plan.providers if c.name not in actual]


def library_problem(provider: str, package: Path) -> str | None:
    """Return why a provider's shared library does not load, or None when it does or the provider has none.

    Loads the library into the process, as creating a session would; for a worker thread.

    Args:
        provider: full name.
        package: the folder of the installed onnxruntime package.
    """
    library = _PROVIDER_LIBRARIES.get(provider)
    if library is None:
        return None
    folder = package / "capi"
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / library))
    except OSError as error:
        return str(error).replace(str(folder), "").strip("/")
    return None
