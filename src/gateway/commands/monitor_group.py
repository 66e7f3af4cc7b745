"""The verbs of `gateway monitor`: parses their options, then calls them."""
# ruff: noqa: PLC0415, PLR0913  as in cli.py: verbs are imported when called, and each option is a parameter

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from gateway.commands.failure import CommandFailed, Exit
from gateway.commands.monitor_extra import EXTRA, not_installed
from gateway.commands.options import reported

monitor_app = typer.Typer(
    help="Watch the predictions that gateways log: drift, performance, canaries, alarms.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ConfigOption: TypeAlias = Annotated[
    Path, typer.Option(envvar="GATEWAY_MONITOR_CONFIG", help="The monitor's configuration file.")
]
MonitorUrlOption: TypeAlias = Annotated[
    str, typer.Option(envvar="GATEWAY_MONITOR_URL", help="The monitor's pages, http://HOST:PORT.")
]
DEFAULT_MONITOR_URL: Final = "http://127.0.0.1:8010"


@contextlib.contextmanager
def with_extra() -> Iterator[None]:
    """Turn failures into messages, and a library that is not installed into how to install it."""
    with reported():
        try:
            yield
        except ModuleNotFoundError as exc:
            name = (exc.name or "").partition(".")[0]
            if name in EXTRA:
                raise CommandFailed(not_installed(name)) from exc
            raise


@monitor_app.command()
def serve(
    *,
    config: ConfigOption,
    ready_json: Annotated[
        bool,
        typer.Option(help="When start-up is over print one JSON line (port, socket) on standard output."),
    ] = False,
    end_with_input: Annotated[
        bool, typer.Option(hidden=True, help="End when standard input does: its other end is the parent's.")
    ] = False,
) -> None:
    """Take logs in, watch them, serve the pages, until SIGTERM or SIGINT."""
    with with_extra():
        from gateway.commands.monitor_serve import serve as run

        run(config, as_json=ready_json, end_with_input=end_with_input)


@monitor_app.command()
def validate(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The configuration file.")],
) -> None:
    """Check a monitor's configuration file; print every complaint with file and line."""
    with with_extra():
        from gateway.config.monitor import load_monitor_config

        load_monitor_config(config)
        typer.echo(f"{config}: valid")


@monitor_app.command()
def profile(
    *,
    data: Annotated[
        Path, typer.Option(help="Parquet or CSV file, or a directory of Parquet files; in order of time.")
    ],
    model: Annotated[str, typer.Option(help="The model's public name.")],
    out: Annotated[
        Path, typer.Option(help="Directory: the profile is MODEL/VERSION/profile.json in it.")
    ] = Path("models"),
    version: Annotated[int, typer.Option(min=0, help="The version it is of; 0: of any.")] = 0,
    task: Annotated[str, typer.Option(help="binary, multiclass, regression or ranking.")] = "",
    score: Annotated[str, typer.Option(metavar="SIGNAL[=COLUMN]", help="What is predicted.")] = "",
    prediction: Annotated[str, typer.Option(metavar="SIGNAL[=COLUMN]", help="The predicted class.")] = "",
    label: Annotated[str, typer.Option(metavar="COLUMN", help="The truth.")] = "",
    class_: Annotated[
        list[str] | None, typer.Option("--class", help="A class, in the order of the scores; repeatable.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="A binary score from which on it is the positive class.")
    ] = 0.5,
    output: Annotated[
        list[str] | None, typer.Option(metavar="SIGNAL[=COLUMN]", help="Another output; repeatable.")
    ] = None,
    segment: Annotated[
        list[str] | None,
        typer.Option(metavar="SIGNAL[=COLUMN]", help="What segments are made of; repeatable."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="SIGNAL=COLUMN", help="What a column is called in the log; repeatable."),
    ] = None,
    tensor: Annotated[
        list[str] | None,
        typer.Option(metavar="TENSOR=COLUMN,...", help="Columns that are one tensor; repeatable."),
    ] = None,
    labelled: Annotated[
        bool, typer.Option("--labelled", help="Values of tensors are logged by name, not by number.")
    ] = False,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="A column to leave out; repeatable.")
    ] = None,
) -> None:
    """Make a reference profile of a model's training data, or of any time when it was good."""
    with with_extra():
        from gateway.commands.monitor_profile import ProfileOptions
        from gateway.commands.monitor_profile import profile as run

        run(
            ProfileOptions(
                data=data,
                model=model,
                out=out,
                version=version,
                task=task,
                score=score,
                prediction=prediction,
                label=label,
                classes=tuple(class_ or ()),
                threshold=threshold,
                outputs=tuple(output or ()),
                segments=tuple(segment or ()),
                names=tuple(name or ()),
                tensors=tuple(tensor or ()),
                labelled=labelled,
                ignored=tuple(ignore or ()),
            )
        )


@monitor_app.command()
def labels(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV or Parquet with key and label; row, at_s, revision, weight, source if known."
        ),
    ],
    *,
    model: Annotated[str, typer.Option(help="The model's public name.")],
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=COLUMN", help="Another name of a column, label=repaid; repeatable."),
    ] = None,
    url: MonitorUrlOption = DEFAULT_MONITOR_URL,
) -> None:
    """Post what turned out to be true to a running monitor; posting it again changes nothing."""
    with with_extra():
        from gateway.commands.monitor_remote import LabelsOptions, import_labels, token

        columns = dict(text.split("=", 1) for text in column or () if "=" in text)
        import_labels(LabelsOptions(file=file, model=model, url=url, columns=columns, token=token()))


@monitor_app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")],
    *,
    out: Annotated[
        Path,
        typer.Option(help="The report: FILE.html, FILE.json or FILE.parquet; or a directory of reports."),
    ],
    period: Annotated[str, typer.Option(help="How far back: 1h, 6h, 1d, 7d, 30d, 90d. [default: 7d]")] = "",
    version: Annotated[str, typer.Option(help="The version; the live one if absent.")] = "",
    format_: Annotated[
        str, typer.Option("--format", help="Of a report in a directory: html, json or parquet.")
    ] = "html",
    keep: Annotated[
        float, typer.Option(min=0, metavar="DAYS", help="Delete older reports from the directory; 0: none.")
    ] = 0.0,
    url: MonitorUrlOption = DEFAULT_MONITOR_URL,
) -> None:
    """Write a report on a model, from aggregates alone, to one file."""
    with reported():
        import time

        from gateway.commands.monitor_export import ExportOptions
        from gateway.commands.monitor_export import export as run
        from gateway.commands.monitor_remote import token

        run(
            ExportOptions(
                model=model,
                out=out,
                url=url,
                format=format_,
                keep_days=keep,
                query={"range": period, "version": version},
                token=token(),
            ),
            time.time(),
        )


@monitor_app.command()
def erase(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="As the log's subject header has it.")],
    *,
    files_of: Annotated[
        Path | None,
        typer.Option(
            metavar="CONFIG",
            help="A gateway's configuration: erase from its Parquet files and spools, not at the monitor.",
        ),
    ] = None,
    url: MonitorUrlOption = DEFAULT_MONITOR_URL,
) -> None:
    """Delete every record of a subject at a running monitor, or in the files of a gateway's log."""
    with reported():
        if files_of is not None:
            from gateway.commands.monitor_erase import erase_files

            erase_files(subject, files_of)
            return
        from gateway.commands.monitor_remote import erase as run
        from gateway.commands.monitor_remote import token

        run(subject, url, token())


@monitor_app.command()
def trace(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="As the log's subject header has it.")],
    *,
    config: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG", help="The monitor's configuration: look in its directory."),
    ] = None,
    files_of: Annotated[
        Path | None,
        typer.Option(
            metavar="CONFIG", help="A gateway's configuration: look in its Parquet files and spools."
        ),
    ] = None,
) -> None:
    """Look for a subject's name and hash in the bytes of every file; fail if they are in any."""
    with with_extra():
        from gateway.commands.monitor_trace import trace_log, trace_monitor

        if (config is None) == (files_of is None):
            raise CommandFailed("give exactly one of --config, --files-of", Exit.USAGE)
        if config is not None:
            trace_monitor(subject, config)
        if files_of is not None:
            trace_log(subject, files_of)
