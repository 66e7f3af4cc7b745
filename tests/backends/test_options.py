"""How options are read, how threads and providers are chosen, and how failures are told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.backends.onnxruntime.cpus import usable_cpus
from gateway.backends.onnxruntime.failures import one_line, run_error
from gateway.backends.onnxruntime.options import OnnxRuntimeOptions, ProviderChoice, parse_options
from gateway.backends.onnxruntime.providers import library_problem, lost_providers, plan_providers
from gateway.backends.onnxruntime.session import thread_counts
from gateway.core.errors import BackendError, BackendUnavailable, ModelLoadError
from gateway.core.types import CPU, Device

CPU_ONLY = ("AzureExecutionProvider", "CPUExecutionProvider")
GPU_BUILD = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, {}),
        ({"intra_op_threads": "3", "inter_op_threads": 2}, {"intra_op_threads": 3, "inter_op_threads": 2}),
        ({"arena_shrinkage": "on"}, {"arena_shrinkage": True}),
        ({"io_binding": "auto"}, {"io_binding": None}),
        ({"io_binding": "false"}, {"io_binding": False}),
        ({"providers": "cuda"}, {"providers": (ProviderChoice("CUDAExecutionProvider"),)}),
        (
            {"providers": [{"name": "CUDA", "options": {"device_id": 1, "use_tf32": False}}, "cpu"]},
            {
                "providers": (
                    ProviderChoice("CUDAExecutionProvider", {"device_id": "1", "use_tf32": "0"}),
                    ProviderChoice("CPUExecutionProvider"),
                )
            },
        ),
        ({"session_options": {"a.b": 1}}, {"session_options": {"a.b": "1"}}),
        ({"optional_inputs": "w"}, {"optional_inputs": ("w",)}),
    ],
)
def test_options_are_read(raw: dict[str, Any], expected: dict[str, Any]) -> None:
    """Options come as YAML values or, from config.pbtxt, as text."""
    assert parse_options(raw) == OnnxRuntimeOptions(**expected)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"intra_threads": 2}, "unknown option 'intra_threads'.*did you mean 'intra_op_threads'"),
        ({"zzzz": 2}, "unknown option 'zzzz' of backend onnxruntime$"),
        ({"intra_op_threads": -1}, "intra_op_threads.*-1 is negative"),
        ({"intra_op_threads": "many"}, "intra_op_threads.*'many'"),
        ({"intra_op_threads": True}, "intra_op_threads"),
        ({"enable_mem_arena": "maybe"}, "enable_mem_arena.*neither true nor false"),
        ({"execution_mode": "fast"}, "'fast' is none of sequential, parallel"),
        ({"graph_optimization_level": 3}, "3 is none of disabled"),
        ({"providers": [{"options": {}}]}, "each provider is a name"),
        ({"providers": [{"name": "cuda", "option": {}}]}, "unknown key 'option'"),
        ({"session_options": ["a"]}, "expected a mapping"),
        ({"optional_inputs": [1]}, "expected a list of names"),
        ({"inspection_timeout_s": 0}, "not a positive number"),
        ({"custom_op_libraries": ["x.so"]}, "refused unless allow_custom_ops"),
        (
            {"providers": [{"name": "tensorrt", "options": {"trt_extra_plugin_lib_paths": "x.so"}}]},
            "native code",
        ),
        (
            {"session_options": {"session.model_external_initializers_file_folder_path": "/"}},
            "external data must lie in the version directory",
        ),
    ],
)
def test_wrong_options_are_named(raw: dict[str, Any], reason: str) -> None:
    """An option that is unknown or does not fit refuses the load and is named."""
    with pytest.raises(ModelLoadError, match=reason):
        parse_options(raw)


def _files(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1 = "sys/fs/cgroup/cpu,cpuacct"
V2 = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 16),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "max 100000\n"}, 16),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "250000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "10000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "nonsense"}, 16),
        (
            {
                "proc/self/cgroup": "0::/pods/a\n",
                f"{V2}/pods/a/cpu.max": "max 100000",
                f"{V2}/pods/cpu.max": "400000 100000",
            },
            4,
        ),
        ({"proc/self/cgroup": "0::/not/visible/here\n", f"{V2}/cpu.max": "200000 100000"}, 2),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/a\n1:name=systemd:/\n",
                f"{V1}/docker/a/cpu.cfs_quota_us": "600000\n",
                f"{V1}/docker/a/cpu.cfs_period_us": "100000\n",
            },
            6,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/a\n",
                f"{V1}/cpu.cfs_quota_us": "150000\n",
                f"{V1}/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            16,
        ),
    ],
)
def test_cpus_respect_quotas(tmp_path: Path, files: dict[str, str], cpus: int) -> None:
    """The tightest of affinity and cgroup quotas, own and inherited, of either version, decides."""
    assert usable_cpus(_files(tmp_path, files), affinity=16) == cpus


def test_cpus_of_this_machine() -> None:
    """On the real file system there is at least one processor, and never more than the affinity mask has."""
    assert 1 <= usable_cpus() <= usable_cpus(Path("/nonexistent"))


@pytest.mark.parametrize(
    ("options", "cpus", "instances", "threads"),
    [
        ({}, 8, 1, (8, 1)),
        ({}, 8, 3, (6, 1)),
        ({}, 2, 4, (1, 1)),
        ({"intra_op_threads": 5}, 2, 1, (5, 1)),
        ({"execution_mode": "parallel"}, 4, 1, (4, 4)),
        ({"execution_mode": "parallel", "inter_op_threads": 2}, 4, 1, (4, 2)),
    ],
)
def test_threads_fill_the_processors(
    options: dict[str, Any], cpus: int, instances: int, threads: tuple[int, int]
) -> None:
    """Callers and pool threads together are as many as there are processors."""
    assert thread_counts(OnnxRuntimeOptions(**options), cpus, instances) == threads


def _works(provider: str) -> str | None:
    return None


def _no_tensorrt(provider: str) -> str | None:
    return "libnvinfer.so.10: cannot open" if "Tensorrt" in provider else None


def _no_gpu(provider: str) -> str | None:
    return "libcudart.so: cannot open"


@pytest.mark.parametrize(
    ("available", "problem", "device", "names", "where"),
    [
        (CPU_ONLY, _works, None, ["CPU"], CPU),
        (CPU_ONLY, _works, CPU, ["CPU"], CPU),
        (GPU_BUILD, _works, None, ["Tensorrt", "CUDA", "CPU"], Device("cuda", 0)),
        (GPU_BUILD, _no_tensorrt, None, ["CUDA", "CPU"], Device("cuda", 0)),
        (GPU_BUILD, _no_tensorrt, Device("cuda", 3), ["CUDA", "CPU"], Device("cuda", 3)),
        (GPU_BUILD, _no_gpu, None, ["CPU"], CPU),
        (GPU_BUILD, _works, CPU, ["CPU"], CPU),
    ],
)
def test_automatic_providers(
    available: tuple[str, ...], problem: Any, device: Device | None, names: list[str], where: Device
) -> None:
    """Without a list: TensorRT, CUDA, CPU as available and loadable, on the device asked for."""
    plan = plan_providers(OnnxRuntimeOptions(), device, available, problem)
    assert [c.name.removesuffix("ExecutionProvider") for c in plan.providers] == names
    assert plan.device == where
    assert plan.may_fall_back is (device is None)
    for choice in plan.providers[:-1]:
        assert choice.options["device_id"] == str(where.ordinal)


def test_what_cannot_be_used_is_told_with_the_reason() -> None:
    """Providers that a build has and cannot load are named with the reason."""
    plan = plan_providers(OnnxRuntimeOptions(), None, GPU_BUILD, _no_gpu)
    assert plan.notices == (
        "TensorrtExecutionProvider cannot be used: libcudart.so: cannot open",
        "CUDAExecutionProvider cannot be used: libcudart.so: cannot open",
    )


@pytest.mark.parametrize(
    ("asked", "available", "names", "may_fall_back"),
    [
        (["cuda", "cpu"], CPU_ONLY, ["CPU"], True),
        (["cuda", "cpu"], GPU_BUILD, ["CUDA", "CPU"], True),
        (["cuda"], GPU_BUILD, ["CUDA", "CPU"], False),
        (["tensorrt"], GPU_BUILD, ["Tensorrt", "CUDA", "CPU"], False),
        (["cpu", "cuda"], GPU_BUILD, ["CPU"], True),
    ],
)
def test_providers_asked_for(
    asked: list[str], available: tuple[str, ...], names: list[str], may_fall_back: bool
) -> None:
    """A list is taken in its order; only one that names the CPU may end there alone."""
    plan = plan_providers(parse_options({"providers": asked}), None, available, _works)
    assert [c.name.removesuffix("ExecutionProvider") for c in plan.providers] == names
    assert plan.may_fall_back is may_fall_back
    assert bool(plan.notices) is ("CUDA" not in names and asked[0] == "cuda")


@pytest.mark.parametrize(
    ("raw", "device", "available", "reason"),
    [
        ({"providers": ["cuda"]}, None, CPU_ONLY, "none of the providers asked for .CUDAExecutionProvider."),
        ({}, Device("cuda", 0), CPU_ONLY, "device cuda:0 was asked for.*gpu extra"),
        ({}, Device("tpu", 0), GPU_BUILD, "device 'tpu:0' is unknown"),
        ({"providers": ["cpu"]}, Device("cuda", 0), GPU_BUILD, "device cuda:0 was asked for"),
        ({"providers": ["cuda"]}, CPU, GPU_BUILD, "none of the providers asked for"),
        ({"cuda": {"device_id": 1}}, Device("cuda", 0), GPU_BUILD, "device_id 1 contradicts"),
        ({"cuda": {"device_id": "x"}}, None, GPU_BUILD, "device_id 'x' is not a number"),
    ],
)
def test_what_was_asked_for_and_is_not_there(
    raw: dict[str, Any], device: Device | None, available: tuple[str, ...], reason: str
) -> None:
    """A provider or device that was asked for and cannot be had fails the load with the reason."""
    with pytest.raises(ModelLoadError, match=reason):
        plan_providers(parse_options(raw), device, available, _no_tensorrt)


def test_cuda_options_pass_through() -> None:
    """Options under `cuda` reach the provider; its own options win over them."""
    raw = {
        "cuda": {"gpu_mem_limit": 1, "use_tf32": 0},
        "providers": [{"name": "cuda", "options": {"use_tf32": 1}}],
    }
    plan = plan_providers(parse_options(raw), Device("cuda", 2), GPU_BUILD, _works)
    assert plan.providers[0].options == {"gpu_mem_limit": "1", "use_tf32": "1", "device_id": "2"}


def test_lost_providers_are_found() -> None:
    """What a created session does not have, of what was asked for, is listed."""
    plan = plan_providers(OnnxRuntimeOptions(), None, GPU_BUILD, _no_tensorrt)
    assert lost_providers(plan, ["CPUExecutionProvider"]) == ["CUDAExecutionProvider"]


def test_library_problem_names_the_library_only(tmp_path: Path) -> None:
    """A provider library that does not load is named without the server's path."""
    problem = library_problem("CUDAExecutionProvider", tmp_path)
    assert problem is not None
    assert "libonnxruntime_providers_shared.so" in problem
    assert str(tmp_path) not in problem
    assert library_problem("CPUExecutionProvider", tmp_path) is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("CUDA failure 2: out of memory ; GPU=0"), BackendUnavailable),
        (RuntimeError("CUDNN failure 4: CUDNN_STATUS_INTERNAL_ERROR"), BackendUnavailable),
        (RuntimeError("CUDA error cudaErrorIllegalAddress:an illegal memory access"), BackendUnavailable),
        (RuntimeError("BFCArena::AllocateRawInternal Available memory of 0 is smaller"), BackendUnavailable),
        (MemoryError(), BackendUnavailable),
        (type("DeviceReset", (Exception,), {})("device"), BackendUnavailable),
        (ValueError("Required inputs (['x']) are missing"), BackendError),
        (RuntimeError("indices element out of data bounds"), BackendError),
    ],
)
def test_whole_backend_failures_are_told_apart(error: Exception, kind: type[BackendError]) -> None:
    """Lost devices and exhausted memory blame no input; everything else may."""
    assert type(run_error(error, "m")) is kind


def test_messages_are_short_and_show_no_paths() -> None:
    """Codes, source locations, C++ signatures and the model's paths go; names of nodes stay."""
    raw = (
        "[ONNXRuntimeError] : 1 : FAIL : Load model from /srv/m/1/model.onnx failed:"
        "/onnxruntime_src/onnxruntime/core/graph/model.cc:256 onnxruntime::Model::Model(onnx::ModelProto&&, "
        "std::function<void(int)>) "
        "[with T = float] Node '/encoder/MatMul' is\nwrong: /srv/m/1/weights.bin"
    )
    expected = "Load model from the model file failed:Node '/encoder/MatMul' is wrong: weights.bin"
    text = one_line(RuntimeError(raw), ("/srv/m/1/model.onnx", "/srv/m/1"))
    assert text == expected
    assert len(one_line(RuntimeError("x" * 5000))) == 400
