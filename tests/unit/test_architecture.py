"""The rings of the architecture: which package may import which, ours and others'."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "gateway"

COMPOSITION = {
    *("app", "wiring", "wiring_registries", "registries", "rolling_out"),
    *("prediction_logging", "prediction_sinks"),
    *("batchers", "triton_fleets", "wiring_triton"),
    *("cli", "commands", "__main__"),
}
"""May import everything of ours: they put the parts together."""

NEIGHBOURS = {
    "core": set(),
    "_proto": set(),
    "testing": set(),
    "config": set(),
    "transport": set(),
    "protocol": {"_proto"},
    "api": {"protocol", "_proto"},
    "telemetry": set(),
    "layers": {"telemetry"},
    "routing": set(),
    "statistics": set(),
    "rollouts": {"statistics"},
    "state": set(),
    "batching": set(),
    "models": {"_proto"},
    "registry": {"models"},
    "backends": set(),
    "admin": set(),
    "predlog": {"_proto"},
    "monitor": {"predlog", "statistics", "telemetry", "_proto", "config"},
}
"""What each package may import of ours beside itself and `core`."""

RESTRICTED = {
    "grpc": {
        *("transport/grpc_aio.py", "commands/load_grpc.py", "monitor/ingest/"),
        "backends/triton/",
    },
    "hpack": {"transport/http2/"},
    "onnxruntime": {"backends/onnxruntime/"},
    "onnx": {"backends/onnxruntime/"},
    "starlette": {"transport/", "monitor/pages/"},
    "uvicorn": {"transport/", "monitor/pages/"},
    "bokeh": {"monitor/pages/"},
    "datasketches": {"monitor/"},
    "pyarrow": {"monitor/", "predlog/sinks/parquet"},
    "nats": {"predlog/sinks/nats", "monitor/ingest/"},
    "scipy": {"statistics/", "monitor/"},
    "prometheus_client": {"telemetry/", "monitor/metrics"},
    "opentelemetry": {"telemetry/"},
    "structlog": {"telemetry/"},
    "pydantic": {"config/", "registry/resolutions.py"},
    "cronsim": {"core/cron.py", "rollouts/", "config/"},
    "xxhash": {"routing/", "predlog/"},
    "rfc8785": {"state/"},
    "ruamel": {"config/", "registry/mlflow/mlmodel.py"},
    "obstore": {"registry/", "predlog/sinks/parquet"},
    "mlflow": {"registry/mlflow/"},
    "model_signing": {"registry/verification/"},
    "watchfiles": {"backends/remote/discovery", "config/", "registry/"},
    "simdjson": {"protocol/"},
    "orjson": {"protocol/", "api/", "admin/", "state/", "monitor/", "predlog/"},
    "typer": {"cli.py", "commands/"},
    "rich": {"cli.py", "commands/"},
    "tritonclient": {"backends/triton/"},
}
"""Third-party packages that only the named places may import."""


def modules() -> list[Path]:
    return sorted(p for p in SOURCE.rglob("*.py") if not p.name.endswith("_pb2.py"))


@cache
def imports(path: Path) -> frozenset[str]:
    return frozenset(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            if node.module == "gateway":
                yield from (f"gateway.{alias.name}" for alias in node.names)


def package_of(path: Path) -> str:
    part = path.relative_to(SOURCE).parts[0]
    return part.removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_of_ours_stay_in_their_ring(path: Path) -> None:
    """A package imports core, itself and its named neighbours; only the composition imports the rest."""
    package = package_of(path)
    if package in COMPOSITION or path == SOURCE / "__init__.py":
        return
    allowed = {"core", package} | NEIGHBOURS[package]
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("gateway.")}
    assert ours <= allowed, f"{package} may not import {sorted(ours - allowed)}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_third_party_libraries_stay_in_their_place(path: Path) -> None:
    """Each restricted library is imported only where the architecture says."""
    place = str(path.relative_to(SOURCE))
    for name in {i.split(".")[0] for i in imports(path)} & RESTRICTED.keys():
        assert any(place == p or place.startswith(p) for p in RESTRICTED[name]), f"{place} imports {name}"


def test_every_package_is_in_the_table() -> None:
    """A new package must be given its place in the rings."""
    found = {package_of(p) for p in modules()} - {"__init__"}
    assert found - COMPOSITION <= NEIGHBOURS.keys()
