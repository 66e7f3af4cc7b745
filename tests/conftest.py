"""Settings of every test: no outcome depends on how fast the machine is, and the build under test is said."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

import gateway
from gateway.commands.version import is_compiled
from tests.properties import DEFAULT_EXAMPLES, examples, try_share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.seaweed import Seaweed


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what the suite is run with."""
    parser.addoption(
        "--compiled",
        action="store_true",
        help="the package under test is the one compiled by mypyc, not the sources; needs PYTHONPATH too",
    )
    parser.addoption(
        "--examples",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="of the examples of each property; `make soak` tries many times as many",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Set how properties are tried; refuse to test the sources where the compiled package was asked for."""
    try_share(config.getoption("--examples"))
    settings.register_profile(
        "suite",
        deadline=None,
        max_examples=examples(DEFAULT_EXAMPLES),
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("suite")
    if config.getoption("--compiled") and not is_compiled():
        raise pytest.UsageError(
            f"--compiled, but the package in {gateway.__path__[0]} is not: `make compiled`, then run pytest "
            "with PYTHONPATH=$PWD/build/compiled"
        )


def pytest_collection_finish() -> None:
    """Have no garbage collection look at ten thousand tests each time."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str:
    """Say where the package under test is."""
    return f"gateway: {gateway.__path__[0]}{', compiled' if is_compiled() else ''}"


@pytest.fixture(scope="session")
def s3() -> Iterator[Seaweed]:
    """A real S3 server, empty at first; each test takes a prefix of its own."""
    # What the server needs is imported by those tests alone that ask for it.
    from tests.servers.seaweed import seaweed

    with seaweed() as server:
        yield server
