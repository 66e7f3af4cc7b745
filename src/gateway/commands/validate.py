"""`gateway validate`: everything that is wrong with a configuration or rollout file and what it points at."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

from gateway import wiring
from gateway.commands.failure import CommandFailed
from gateway.commands.serve import listeners, repeated_ports
from gateway.commands.validate_fleets import fleet_complaints
from gateway.commands.validate_models import model_complaints, readable_file
from gateway.commands.validate_rollouts import (
    configured_rollouts,
    is_rollout,
    print_valid,
    validate_directory,
    validate_rollout,
)
from gateway.config.schema import load_config
from gateway.config.yaml_file import read_yaml
from gateway.core.errors import ConfigError
from gateway.telemetry.tracing import otlp_exporter
from gateway.transport.options import TlsOptions
from gateway.transport.tls import server_context

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.config.schema import GatewayConfig, TlsSettings
    from gateway.config.yaml_file import Location


def validate(file: Path) -> None:
    """Print a summary of a configuration that could be served, or of rollout files that could be followed.

    Not looked into: model files, which only a load can judge, and ports that others hold just now.

    Raises:
        ConfigError: the file itself is wrong; every complaint on a line of its own.
        CommandFailed: what it points at is missing, unreadable or wrong; likewise.
    """
    if file.is_dir():
        validate_directory(file)
        return
    if is_rollout(file):
        validate_rollout(file)
        return
    config = load_config(file)
    lines = read_yaml(file)
    complaints = [f"{file}:{lines.line_of(at)}: {text}" for at, text in find_complaints(config)]
    wrong, rollouts = configured_rollouts(config, file)
    if complaints or wrong:
        raise CommandFailed("\n".join([*complaints, *wrong]))
    sys.stdout.write(f"{file}: valid; {_summary(config)}\n")
    for rollout in rollouts:
        print_valid(rollout)


def _summary(config: GatewayConfig) -> str:
    names = [model.name for model in config.models]
    parts = [f"models {', '.join(names)}"] if names else []
    if config.repository is not None:
        parts.append(f"repository {config.repository.path} (mode {config.repository.mode})")
    if config.triton:
        parts.append(f"Triton fleets {', '.join(fleet.name for fleet in config.triton)}")
    return "; ".join(parts) or "it names no model: pass some to `gateway serve`"


def find_complaints(config: GatewayConfig) -> Iterator[tuple[Location, str]]:
    """Yield where in the file, and what: about all that the configuration names outside itself."""
    yield from _address_complaints(config)
    for part, tls in (("http", config.server.http.tls), ("grpc", config.server.grpc.tls)):
        if tls is not None:
            yield from _tls_complaints(("server", part, "tls"), tls)
    yield from _tracing_complaints(config)
    yield from fleet_complaints(config)
    yield from model_complaints(config)


def _address_complaints(config: GatewayConfig) -> Iterator[tuple[Location, str]]:
    for name, other, port in repeated_ports(config):
        yield ("server", "ports", name), f"port {port} is given twice: for {other} and for {name}"
    hosts = {host: "admin_host" if name == "admin" else "host" for name, host, _ in listeners(config)}
    for host, key in hosts.items():
        try:
            socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as exc:
            yield ("server", key), f"'{host}' is no address: {exc}"


def _tls_complaints(at: Location, tls: TlsSettings) -> Iterator[tuple[Location, str]]:
    files = {"cert_file": tls.cert_file, "key_file": tls.key_file, "client_ca_file": tls.client_ca_file}
    unreadable = {key: file for key, file in files.items() if file is not None and not readable_file(file)}
    for key, file in unreadable.items():
        yield (*at, key), f"{file}: no such readable file"
    if unreadable:
        return
    try:
        server_context(TlsOptions(certificate=tls.cert_file, key=tls.key_file, client_ca=tls.client_ca_file))
    except ConfigError as exc:
        yield at, str(exc)


def _tracing_complaints(config: GatewayConfig) -> Iterator[tuple[Location, str]]:
    if config.telemetry.tracing.endpoint is None:
        return
    try:
        otlp_exporter(wiring.tracing_options(config)).shutdown()
    except ConfigError as exc:
        yield ("telemetry", "tracing", "endpoint"), str(exc)
