"""A scene for every test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.rollouts.shell.scene import Scene

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
async def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)
