"""ONNX's protobuf messages, without the rest of its package.

Importing the package takes three times as long as all else that an inspection does with a small file: it
brings NumPy and its own checker, helper and composer, none of which reading a message needs.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import ModuleType

    from onnx import onnx_ml_pb2 as messages
else:
    _NAME: Final = "onnx.onnx_ml_pb2"

    def _messages() -> ModuleType:
        """Return `onnx.onnx_ml_pb2`: the one imported already, else from its file alone."""
        if (imported := sys.modules.get(_NAME)) is not None:
            return imported
        package = find_spec("onnx")  # found, not imported
        if package is None or package.origin is None:
            raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
        spec = spec_from_file_location(_NAME, Path(package.origin).with_name("onnx_ml_pb2.py"))
        module = module_from_spec(spec)
        sys.modules[_NAME] = module
        spec.loader.exec_module(module)
        return module

    messages = _messages()

__all__ = ["messages"]
