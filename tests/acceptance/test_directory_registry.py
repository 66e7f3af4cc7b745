"""A model that follows an alias in a directory: file events make it quick, polling makes it sure."""

from __future__ import annotations

import json
import shutil
import urllib.request
from typing import TYPE_CHECKING

from tests.acceptance.process import ROOT, RunningGateway, serving, until

if TYPE_CHECKING:
    from pathlib import Path


def versions(gateway: RunningGateway) -> list[str]:
    with urllib.request.urlopen(f"http://{gateway.http}/v2/models/digits", timeout=30) as answer:
        found: list[str] = json.load(answer)["versions"]
        return found


def test_a_moved_alias_is_seen_without_waiting_for_the_next_look(tmp_path: Path) -> None:
    """With a poll an hour away, the version that the alias names is served before the test gives up."""
    shelf = tmp_path / "shelf" / "digits"
    for number in "12":
        shutil.copytree(ROOT / "models" / "digits" / number, shelf / number)
    (shelf / "aliases").mkdir()
    alias = shelf / "aliases" / "champion"
    alias.write_text("1")
    config = {
        "registries": {"shelf": {"directory": {"path": "shelf"}, "poll_interval_s": 3600}},
        "cache": {"directory": "cache"},
        "models": [{"name": "digits", "source": "shelf/digits@champion"}],
    }
    (tmp_path / "gateway.yaml").write_text(json.dumps(config))
    with serving(tmp_path / "log", "--config", tmp_path / "gateway.yaml") as gateway:
        assert versions(gateway) == ["1"]
        moved = tmp_path / "moved"
        moved.write_text("2")
        moved.replace(alias)
        until(lambda: versions(gateway) == ["2"])
