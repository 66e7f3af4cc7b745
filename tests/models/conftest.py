"""Fixtures of the model tests."""

from __future__ import annotations

import pytest

from tests.models.stage import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage()
