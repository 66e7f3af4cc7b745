"""A registry's config.pbtxt may tune a model, and may not reach for native code or files."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.errors import ModelLoadError
from gateway.core.options import ModelSpec
from gateway.models.pbtxt import declare, parse_text
from gateway.registry.verification.authored_options import check_authored_options

ACCELERATOR = """optimization {{ execution_accelerators {{ {kind}_execution_accelerator [
  {{ name: "{name}" parameters {{ key: "{key}" value: "{value}" }} }} ] }} }}"""

REFUSED = {
    "library": ('model_operations { op_library_filename: "1/evil.so" }', "asks for 'custom_op_libraries'"),
    "tensorrt cache": (
        ACCELERATOR.format(kind="gpu", name="tensorrt", key="trt_engine_cache_path", value="/etc"),
        "sets 'trt_engine_cache_path'",
    ),
    "tensorrt plugins": (
        ACCELERATOR.format(kind="gpu", name="tensorrt", key="trt_extra_plugin_lib_paths", value="x.so"),
        "sets 'trt_extra_plugin_lib_paths'",
    ),
    "tensorrt weights": (
        ACCELERATOR.format(kind="gpu", name="tensorrt", key="trt_onnx_model_folder_path", value="/"),
        "sets 'trt_onnx_model_folder_path'",
    ),
    "openvino settings": (
        ACCELERATOR.format(kind="cpu", name="openvino", key="load_config", value="/tmp/x.json"),
        "sets 'load_config'",
    ),
    "openvino cache": (
        ACCELERATOR.format(kind="cpu", name="openvino", key="cache_dir", value="/var"),
        "sets 'cache_dir'",
    ),
    "session": (
        'parameters { key: "session.x_file_folder_path" value { string_value: "/" } }',
        "sets 'session.x_file_folder_path'",
    ),
}


def _declared(text: str, own: dict[str, Any]) -> dict[str, Any]:
    spec = declare(
        parse_text(f'backend: "onnxruntime" {text}'), ModelSpec(name="m", backend_options=own)
    ).spec
    return dict(spec.backend_options)


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(text: str, reason: str) -> None:
    """What runs code or names files is refused, also where the operator allows custom operators."""
    for own in ({}, {"allow_custom_ops": True}):
        with pytest.raises(
            ModelLoadError, match=f"config.pbtxt {reason}.*only the gateway's own configuration"
        ):
            check_authored_options(_declared(text, own), own)


ALLOWED = {
    "nothing": "",
    "threads": 'parameters { key: "intra_op_thread_count" value { string_value: "2" } }',
    "session": 'parameters { key: "session.disable_prepacking" value { string_value: "1" } }',
    "precision": ACCELERATOR.format(kind="gpu", name="tensorrt", key="precision_mode", value="FP16"),
    "workspace": ACCELERATOR.format(kind="gpu", name="tensorrt", key="max_workspace_size_bytes", value="1"),
    "threads of openvino": ACCELERATOR.format(kind="cpu", name="openvino", key="num_of_threads", value="2"),
}


@pytest.mark.parametrize("text", ALLOWED.values(), ids=ALLOWED.keys())
def test_allowed(text: str) -> None:
    """What only tunes is let through."""
    check_authored_options(_declared(text, {}), {})


def test_the_operators_own() -> None:
    """What the operator configured is the operator's, whatever it names."""
    own = {
        "allow_custom_ops": True,
        "custom_op_libraries": ["/opt/ops.so"],
        "providers": [{"name": "tensorrt", "options": {"trt_engine_cache_path": "/var/cache"}}, "cpu"],
    }
    check_authored_options(_declared("", own), own)
