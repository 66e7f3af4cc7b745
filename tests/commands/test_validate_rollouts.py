"""`gateway validate` on rollout files, alone and through the gateway's configuration."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.commands.failure import Exit
from tests.config.rollouts.texts import ROLLOUT, SPLIT, rollout


def validate(path: Path) -> Result:
    return CliRunner().invoke(app, ["validate", str(path)])


@pytest.fixture
def gateway(tmp_path: Path) -> Path:
    """A configuration with a model `m` and a directory of rollout files."""
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "rollouts").mkdir()
    file = tmp_path / "gateway.yaml"
    file.write_text("models:\n- {name: m, path: m}\nrollouts: {directory: rollouts}\n")
    return file


def test_a_rollout_file_alone(tmp_path: Path) -> None:
    """A summary in a line, warnings below."""
    path = tmp_path / "a.yaml"
    path.write_text(ROLLOUT.replace("gates:\n  safety", "gates:\n  idle: [{srm: {}}]\n  safety"))
    result = validate(path)
    assert result.exit_code == Exit.OK, result.stderr
    assert f"{path}: valid; rollout 'line' of model 'm': @challenger beside 1; 2 steps, 5%" in result.stdout
    assert f"warning: {path}:12: gates.idle" in result.stdout
    path.write_text(SPLIT)
    assert "split of model 'm': 90% to version 1, 10% to version 2" in validate(path).stdout


def test_a_wrong_rollout_file_alone(tmp_path: Path) -> None:
    """It is taken for what it means to be, even where it is no YAML."""
    path = tmp_path / "a.yaml"
    path.write_text(ROLLOUT.replace('"@challenger"', "@challenger"))
    result = validate(path)
    assert result.exit_code == Exit.FAILED
    assert result.stderr.startswith(f"{path}:7: ")
    assert "write an alias in quotes" in result.stderr


def test_a_directory_of_rollout_files(tmp_path: Path) -> None:
    """Every file by itself, and all together."""
    (tmp_path / "a.yaml").write_text(rollout())
    assert "rollout 'line'" in validate(tmp_path).stdout
    (tmp_path / "b.yaml").write_text(rollout("other"))
    result = validate(tmp_path)
    assert result.exit_code == Exit.FAILED
    assert "a.yaml:1: model 'm' is spoken for by" in result.stderr
    assert "b.yaml:1: model 'm' is spoken for by" in result.stderr


def test_through_the_configuration(gateway: Path) -> None:
    """The files of its directory are looked at too."""
    path = gateway.parent / "rollouts" / "a.yaml"
    path.write_text(rollout())
    result = validate(gateway)
    assert result.exit_code == Exit.OK, result.stderr
    assert "rollout 'line' of model 'm'" in result.stdout
    path.write_text(rollout(weight="5"))
    assert f"{path}:9: steps.0.weight" in validate(gateway).stderr
    path.write_text(rollout(model="n"))
    assert f"{path}:1: model: the configuration has no model 'n'; there are m" in validate(gateway).stderr


def test_a_model_split_by_its_entry_cannot_have_a_file(gateway: Path) -> None:
    """Both places are named."""
    gateway.write_text(
        "models:\n- {name: m, path: m, split: {1: 90, 2: 10}}\nrollouts: {directory: rollouts}\n"
    )
    path = gateway.parent / "rollouts" / "a.yaml"
    path.write_text(rollout())
    assert f"model 'm' is spoken for by {gateway}: models.m too" in validate(gateway).stderr


def test_a_missing_directory_is_told(gateway: Path) -> None:
    """As for everything that the configuration names."""
    (gateway.parent / "rollouts").rmdir()
    result = validate(gateway)
    assert result.exit_code == Exit.FAILED
    assert "rollouts: cannot be read: No such file or directory" in result.stderr


def test_what_a_file_may_ask_for_is_bounded_by_the_configuration(gateway: Path) -> None:
    """How long two versions may stay in memory is the platform's to say."""
    gateway.write_text(gateway.read_text().replace("rollouts}", "rollouts, max_rollback_window_s: 60}"))
    (gateway.parent / "rollouts" / "a.yaml").write_text(rollout())
    assert "longer than rollouts.max_rollback_window_s allows, 1m" in validate(gateway).stderr
