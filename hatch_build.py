"""Compiles the modules of the request path with mypyc when a wheel is built with GATEWAY_COMPILE=1."""

from __future__ import annotations

import os
import shlex
import shutil
import sysconfig
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds one extension module per Python module named by `modules` in pyproject.toml.

    The Python files are installed too: they are what runs where the extensions do not fit.
    """

    _folder: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless the build is an editable one or nobody asked for it."""
        if version == "editable" or os.environ.get("GATEWAY_COMPILE", "") in {"", "0"}:
            return
        self._folder = folder = Path(mkdtemp(prefix="compiled-"))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for library in compile_modules(Path(self.root), self.config["modules"], folder):
            build_data["force_include"][str(library)] = library.relative_to(folder / "lib").as_posix()

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove what lay between the sources and the wheel."""
        if self._folder is not None:
            rmtree(self._folder, ignore_errors=True)


def require_compiler() -> None:
    """Say what is missing before two minutes are spent on C that nothing can compile.

    Raises:
        RuntimeError: there is no C compiler, or Python's headers are not installed.
    """
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    if shutil.which(shlex.split(compiler)[0]) is None:
        raise RuntimeError(
            f"no C compiler: {compiler!r} is not on PATH. Install one (Debian: gcc libc6-dev), or set CC"
        )
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        raise RuntimeError(f"no {header}: install this Python's headers (Debian: python3-dev).")


def compile_modules(root: Path, patterns: list[str], folder: Path) -> list[Path]:
    """Compile the modules that match (`!` takes some out); return the libraries, under `folder`/lib."""
    from mypyc.build import mypycify  # noqa: PLC0415 - needed by whoever compiles alone
    from setuptools import Distribution  # type: ignore[import-untyped]  # noqa: PLC0415
    from setuptools.command.build_ext import build_ext  # type: ignore[import-untyped]  # noqa: PLC0415

    require_compiler()
    chosen: set[Path] = set()
    for pattern in patterns:
        found = set(root.glob(pattern.removeprefix("!")))
        if not found:
            raise ValueError(f"no module matches {pattern!r}")
        chosen = chosen - found if pattern.startswith("!") else chosen | found
    modules = sorted(str(path.relative_to(root)) for path in chosen)
    os.chdir(root)  # mypy's configuration names folders by where it is
    extensions = mypycify(
        ["--config-file=pyproject.toml", *modules],
        opt_level="2",
        debug_level="0",
        target_dir=str(folder / "c"),
        group_name="model_gateway",
    )
    for extension in extensions:
        # Python asks for -Wall, which takes gcc longer than to compile does: all modules are one file of C.
        extension.extra_compile_args.append("-Wno-all")
    command = build_ext(Distribution({"name": "model-gateway", "ext_modules": extensions}))
    command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "objects")
    command.parallel = os.cpu_count()
    command.ensure_finalized()
    command.run()
    return sorted((folder / "lib").rglob("*.so"))
