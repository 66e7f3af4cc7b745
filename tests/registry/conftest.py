"""Servers that the tests of registries share."""

from collections.abc import Iterator

import pytest

from tests.servers.seaweed import Seaweed, seaweed


@pytest.fixture(scope="session")
def s3() -> Iterator[Seaweed]:
    """A real S3 server, empty at first; each test takes a prefix of its own."""
    with seaweed() as server:
        yield server
