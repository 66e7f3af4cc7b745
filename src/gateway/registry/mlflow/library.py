"""MLflow's own client: importing it, what the gateway wants of it, and what its errors mean."""

from __future__ import annotations

import logging
import math
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gateway.core.registry import NotInRegistry, RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient

PAGE: Final = 1000
"""Versions asked for at a time."""
_QUIET: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}
_MAX_TEXT: Final = 200


@dataclass(frozen=True, slots=True)
class Look:
    """What MLflow answered about one model; its own objects.

    Attributes:
        model: the `RegisteredModel`.
        versions: `ModelVersion`s, those that an alias names among them.
    """

    model: Any
    versions: list[Any]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What lineage tells of the run that made a version.

    Attributes:
        experiment: its experiment's name.
        datasets: `name` and `digest` of each dataset it read.
    """

    experiment: str
    datasets: tuple[dict[str, str], ...]


def set_defaults(timeout_s: float) -> None:
    """Give MLflow's client settings that suit a server, in the environment, where it alone looks for them.

    What the operator has set stays. Without this it sends usage statistics to its makers, prints on its own,
    and repeats a failed call for four minutes, 120 s each.

    Args:
        timeout_s: seconds for a request.
    """
    for name, value in {**_QUIET, "MLFLOW_HTTP_REQUEST_TIMEOUT": str(math.ceil(timeout_s))}.items():
        os.environ.setdefault(name, value)
    # Each attempt at a server that is down is a warning of its own; that it is down we say ourselves.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def connect(step: str, tracking_uri: str, registry_uri: str) -> MlflowClient:
    """Return a client. Nothing is sent to a server yet. Blocking: the import alone takes more than a second.

    Raises:
        RegistryError: of the step given; MLflow's client cannot be imported, or not be used so.
    """
    try:
        from mlflow import MlflowClient  # noqa: PLC0415 - slow, and an extra
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - slow, and an extra
        from mlflow.tracking.registry import (  # noqa: PLC0415 - slow, and an extra
            UnsupportedModelRegistryStoreURIException,
        )
    except ImportError as exc:
        raise RegistryError(
            step, f"MLflow's client cannot be imported: {shown(str(exc))}", may_pass=False
        ) from exc
    try:
        return MlflowClient(tracking_uri, registry_uri or None)
    except UnsupportedModelRegistryStoreURIException as exc:
        raise RegistryError(
            step,
            "a tracking_uri without a server needs the whole of MLflow: pip install mlflow",
            may_pass=False,
        ) from exc
    except MlflowException as exc:
        raise RegistryError(step, f"MLflow: {shown(str(exc))}", may_pass=False) from exc


def look(client: MlflowClient, name: str, max_versions: int) -> Look:
    """Ask for a model, its aliases and its newest versions; two requests as a rule. Blocking.

    The aliases are asked for first, so that a version that one names is known, unless it went meanwhile.
    """
    model = client.get_registered_model(name)
    versions: list[Any] = []
    token: str | None = None
    while len(versions) < max_versions:
        page = client.search_model_versions(
            f"name = {_quoted(name)}",
            max_results=min(PAGE, max_versions - len(versions)),
            order_by=["version_number DESC"],
            page_token=token,
        )
        versions += page
        token = page.token
        if not token:
            return Look(model, versions)
    known = {str(version.version) for version in versions}
    older = sorted({str(label) for label in model.aliases.values()} - known)
    return Look(model, versions + [client.get_model_version(name, label) for label in older[:PAGE]])


def run_facts(client: MlflowClient, run_id: str) -> RunFacts:
    """Ask about a run; two requests. Blocking."""
    run = client.get_run(run_id)
    experiment = client.get_experiment(run.info.experiment_id)
    inputs = run.inputs.dataset_inputs if run.inputs else []
    datasets = tuple({"name": i.dataset.name, "digest": i.dataset.digest} for i in inputs[:100])
    return RunFacts(str(experiment.name), datasets)


@contextmanager
def translated(step: str, server: str) -> Iterator[None]:
    """Turn what MLflow's client raises into a RegistryError.

    Args:
        step: `resolve` or `fetch`.
        server: where it is, without credentials; for messages.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - slow, and an extra

    try:
        yield
    except MlflowException as exc:
        raise _meaning(step, server, exc) from exc


def _meaning(step: str, server: str, error: Any) -> RegistryError:
    """Say what an MlflowException is. The texts of those that are no answer hold URLs: they stay here."""
    from mlflow.exceptions import RestException  # noqa: PLC0415 - slow, and an extra

    code = str(error.error_code)
    answer = shown(str(error)) if isinstance(error, RestException) else ""
    if code in {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}:
        if step == "resolve":
            return NotInRegistry(f"MLflow at {server}: {answer or 'no such model'}")
        return RegistryError(step, f"MLflow at {server}: {answer or 'no such version'}", may_pass=False)
    if code in {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}:
        return RegistryError(step, refused(server), may_pass=True)
    if answer and code in {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}:
        return RegistryError(step, f"MLflow at {server} answered {answer}", may_pass=False)
    return RegistryError(step, f"MLflow at {server} {answer or transport_fault(error)}", may_pass=True)


def refused(server: str) -> str:
    """Say that a server wants other credentials."""
    return (
        f"MLflow at {server} refuses access: check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
        "MLFLOW_TRACKING_TOKEN, in the gateway's environment, and what that user may read"
    )


def transport_fault(error: BaseException) -> str:
    """Say what went wrong between here and the server, as a predicate."""
    import requests  # noqa: PLC0415 - comes with MLflow
    import urllib3.exceptions as http  # noqa: PLC0415 - comes with MLflow

    table: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
        ((http.NewConnectionError,), "cannot be reached"),  # to urllib3 it is a timeout too
        ((requests.exceptions.Timeout, http.TimeoutError), "did not answer in time"),
        ((requests.exceptions.SSLError,), "has a TLS certificate that is not trusted, or speaks no TLS"),
        ((requests.exceptions.RetryError,), "keeps answering with errors (429 or 5xx): look at its log"),
        ((requests.exceptions.TooManyRedirects,), "redirects in a circle"),
        ((http.ProtocolError, requests.exceptions.ChunkedEncodingError), "broke the connection off"),
        ((requests.exceptions.ConnectionError, OSError), "cannot be reached"),
    )
    chain: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None:
        chain.append(seen)
        seen = seen.__cause__ or seen.__context__
    for kinds, text in table:
        if any(isinstance(each, kinds) for each in chain):
            return text
    return "answered something that is not MLflow's: is this the address of a tracking server?"


def shown(text: str) -> str:
    """Return a text of the server's as one short line."""
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= _MAX_TEXT else f"{line[: _MAX_TEXT - 3]}..."


def _quoted(name: str) -> str:
    """Return a model's name as a literal of MLflow's filters, which have no escapes.

    Raises:
        RegistryError: it has quotes of both kinds.
    """
    if "'" not in name:
        return f"'{name}'"
    if '"' in name:
        raise RegistryError(
            "resolve", f"{name!r}: MLflow cannot search for both kinds of quotes", may_pass=False
        )
    return f'"{name}"'
