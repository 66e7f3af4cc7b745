"""The `gateway` command: parses the command line and the environment, then calls the verb.

The environment is read here and by the options of several verbs (`commands/options.py`), and nowhere else.
Verbs with verbs of their own are in `commands/*_group.py`. What a verb does is imported when it is called, so
that `gateway --help` loads no numerical or network library.

Exit codes: 0 done (for `serve`: stopped by a signal, everything accepted was answered); 1 failed (refused by
the server, a wrong file, a port taken, stopped by a second signal); 2 wrong command line; 3 no gateway there.
"""
# ruff: noqa: PLC0415  importing late is this module's purpose

import enum
import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeAlias

import typer

from gateway.commands.audit_group import audit_app
from gateway.commands.ending import end_process
from gateway.commands.models_group import models_app
from gateway.commands.monitor_group import monitor_app
from gateway.commands.options import (
    DEFAULT_URL,
    JsonOption,
    ModelArgument,
    UrlOption,
    VersionOption,
    address_of,
    reported,
)
from gateway.commands.plan_command import plan
from gateway.commands.rollout_group import rollout_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.app import Gateway
    from gateway.config.schema import GatewayConfig
    from gateway.core.interfaces import LifecycleObserver

app = typer.Typer(
    help="Serve ONNX models over the Open Inference Protocol (gRPC and HTTP), dynamically batched.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong command line, 3 no gateway answers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class GrpcTransport(enum.StrEnum):
    """What speaks gRPC."""

    NATIVE = "native"
    GRPCIO = "grpcio"


class RepositoryMode(enum.StrEnum):
    """How a repository is followed."""

    NONE = "none"
    EXPLICIT = "explicit"
    POLL = "poll"


class LogLevel(enum.StrEnum):
    """Least level logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(enum.StrEnum):
    """How log lines look."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class InputFormat(enum.StrEnum):
    """What an input file holds."""

    JSON = "json"
    NPY = "npy"
    NPZ = "npz"
    RAW = "raw"


class LoadProtocol(enum.StrEnum):
    """What a load is sent over."""

    HTTP = "http"
    GRPC = "grpc"


_BENCH_DEFAULTS = {LoadProtocol.HTTP: ("GATEWAY_URL", 8000), LoadProtocol.GRPC: ("GATEWAY_GRPC_URL", 8001)}
"""Variable that holds the URL, and port where the URL names none."""

Port: TypeAlias = int | None


@app.command()
def serve(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[MODEL.onnx | MODEL_DIR | REPOSITORY_DIR]...",
            help="Models to serve, or one repository in Triton's layout (NAME/1/model.onnx).",
        ),
    ] = None,
    *,
    config: Annotated[
        Path | None,
        typer.Option(envvar="GATEWAY_CONFIG", help="Configuration file; paths and flags win over it."),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            envvar="GATEWAY_HOST",
            help="Address of HTTP, gRPC and metrics. [default: 127.0.0.1; 0.0.0.0 opens every interface]",
        ),
    ] = None,
    admin_host: Annotated[
        str | None,
        typer.Option(
            envvar="GATEWAY_ADMIN_HOST",
            help="Address of administration; --host leaves it alone. [default: 127.0.0.1]",
        ),
    ] = None,
    http_port: Annotated[
        Port,
        typer.Option(
            envvar="GATEWAY_HTTP_PORT",
            min=0,
            max=65535,
            help="0 picks a free one, here and below. [default: 8000]",
        ),
    ] = None,
    grpc_port: Annotated[
        Port, typer.Option(envvar="GATEWAY_GRPC_PORT", min=0, max=65535, help="[default: 8001]")
    ] = None,
    metrics_port: Annotated[
        Port, typer.Option(envvar="GATEWAY_METRICS_PORT", min=0, max=65535, help="[default: 8002]")
    ] = None,
    admin_port: Annotated[
        Port, typer.Option(envvar="GATEWAY_ADMIN_PORT", min=0, max=65535, help="[default: 8003]")
    ] = None,
    grpc_transport: Annotated[
        GrpcTransport | None,
        typer.Option(
            envvar="GATEWAY_GRPC_TRANSPORT",
            help="native: the gateway's own HTTP/2; grpcio: gRPC's C library. [default: grpcio]",
        ),
    ] = None,
    repository_mode: Annotated[
        RepositoryMode | None,
        typer.Option(
            envvar="GATEWAY_REPOSITORY_MODE",
            help="none: load all once; explicit: what clients load; poll: follow changes. [default: none]",
        ),
    ] = None,
    load_model: Annotated[
        list[str] | None,
        typer.Option(
            envvar="GATEWAY_LOAD_MODEL",
            help="In mode explicit, a model to load at start; repeatable; * is all.",
        ),
    ] = None,
    ready_json: Annotated[
        bool,
        typer.Option(
            help="When start-up is over print one JSON line (ports, ready, models) on standard output, "
            "and everything else on standard error."
        ),
    ] = False,
    log_level: Annotated[
        LogLevel | None, typer.Option(envvar="GATEWAY_LOG_LEVEL", help="[default: info]")
    ] = None,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(envvar="GATEWAY_LOG_FORMAT", help="[default: auto, console on a terminal]"),
    ] = None,
    access_log: Annotated[
        bool | None,
        typer.Option(
            "--access-log/--no-access-log", envvar="GATEWAY_ACCESS_LOG", help="One line per request."
        ),
    ] = None,
    with_monitor: Annotated[
        Path | None,
        typer.Option(
            envvar="GATEWAY_WITH_MONITOR",
            metavar="FILE",
            help="Also run the monitor with this configuration file, in a process that ends with this one.",
        ),
    ] = None,
) -> None:
    """Serve models until SIGTERM or SIGINT; a second signal stops at once, with exit code 1.

    A model that fails to load stops nothing: the server stays up, and is not ready if the model is required.
    """
    with reported():
        from gateway.commands.serve import serve as run
        from gateway.commands.serve_config import ServeFlags, build_config

        flags = ServeFlags(
            host=host,
            admin_host=admin_host,
            ports={"http": http_port, "grpc": grpc_port, "metrics": metrics_port, "admin": admin_port},
            repository_mode=repository_mode,
            load_at_start=load_model or (),
            grpc_transport=grpc_transport,
            log_level=log_level,
            log_format=log_format,
            access_log=access_log,
        )
        run(build_config(paths or (), config, flags), _make_gateway, as_json=ready_json, monitor=with_monitor)


def _make_gateway(config: "GatewayConfig", observers: "Sequence[LifecycleObserver]") -> "Gateway":
    # gRPC's fork handlers print a warning for each process we start; those never use the parent's channels.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    from gateway.app import Gateway

    return Gateway(config, observers)


@app.command()
def validate(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The configuration file.")],
) -> None:
    """Check a configuration file and what it points at; print every complaint with file and line."""
    with reported():
        from gateway.commands.validate import validate as run

        run(config)


@app.command()
def infer(
    model: ModelArgument,
    *,
    input_: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="FILE|-",
            help='JSON ({"INPUT": values} or a whole request), npy (one input), npz (by input name), or raw: '
            "the bytes of a single input.",
        ),
    ],
    version: VersionOption = "",
    url: UrlOption = DEFAULT_URL,
    format_: Annotated[
        InputFormat | None,
        typer.Option("--format", help="What FILE holds; guessed from its name, else json."),
    ] = None,
    output: Annotated[
        list[str] | None, typer.Option(help="An output wanted; repeatable; all if absent.")
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="Show this many classes with the highest scores.")] = 0,
    header: Annotated[list[str] | None, typer.Option(help="'Name: value' to send along; repeatable.")] = None,
    timeout_s: Annotated[
        float, typer.Option(min=0.001, help="Longest wait for an answer, in seconds.")
    ] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Send one request to a running gateway and print the outputs."""
    with reported():
        from gateway.commands.infer import InferOptions, parse_header
        from gateway.commands.infer import infer as run

        options = InferOptions(
            address=address_of(url),
            model=model,
            version=version,
            input=input_,
            format=format_ or "",
            outputs=tuple(output or ()),
            top=top,
            headers=dict(map(parse_header, header or ())),
            timeout_s=timeout_s,
            as_json=as_json,
        )
        run(options)


@app.command()
def bench(
    model: ModelArgument,
    *,
    version: VersionOption = "",
    url: Annotated[
        str | None,
        typer.Option(
            help="The gateway's port for the protocol. [default: GATEWAY_URL, else port 8000 here; "
            "for grpc GATEWAY_GRPC_URL, else port 8001]"
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of each request.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Requests under way at any time.")] = 32,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="Duration.")] = 5.0,
    protocol: Annotated[LoadProtocol, typer.Option(help="What to send requests over.")] = LoadProtocol.HTTP,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="INPUT:SIZES", help="Full shape of an input, x:1,3,48,320; repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print a quick closed-loop figure of a model on a running gateway; loadtests/ measures properly."""
    with reported():
        from gateway.commands.bench import BenchOptions, parse_shape
        from gateway.commands.bench import bench as run

        # Not typer's envvar: which variable stands for the URL depends on another option.
        variable, port = _BENCH_DEFAULTS[protocol]
        options = BenchOptions(
            address=address_of(url or os.environ.get(variable) or "127.0.0.1", port),
            model=model,
            version=version,
            rows=rows,
            concurrency=concurrency,
            seconds=seconds,
            protocol=protocol,
            shapes=dict(map(parse_shape, shape or ())),
            as_json=as_json,
        )
        run(options)


app.add_typer(models_app, name="models")
app.command()(plan)
app.add_typer(rollout_app, name="rollout")
app.add_typer(audit_app, name="audit")
app.add_typer(monitor_app, name="monitor")


@app.command()
def version() -> None:
    """Print the version, and whether it is compiled."""
    from gateway.commands.version import describe_version

    typer.echo(describe_version())


def main() -> NoReturn:
    """Run the command line and end the process."""
    # What modules define is no garbage: looking for it among that takes a tenth of a start.
    gc.set_threshold(20_000, 20, 50)
    try:
        app(prog_name="gateway")
    except SystemExit as ended:
        end_process(ended.code if isinstance(ended.code, int) else 0)
    end_process(0)
