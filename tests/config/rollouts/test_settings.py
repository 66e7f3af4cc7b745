"""What the gateway's own configuration says about rollouts, and about splits of a model's versions."""

from pathlib import Path

import pytest

from gateway.config.rollout_settings import entry_splits
from gateway.config.schema import GatewayConfig, check_config, load_config
from gateway.config.yaml_file import parse_yaml
from gateway.core.errors import ConfigError
from gateway.core.rollout import KeyKind, KeySource, Target


def config(text: str) -> GatewayConfig:
    return check_config(parse_yaml(text.encode(), "f.yaml"))


def complaint(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config(text)
    return str(caught.value)


def test_a_models_entry_may_split_and_mirror() -> None:
    """As a file of kind Split does."""
    text = (
        "models:\n- {name: a, path: a}\n"
        "- {name: b, path: b, split: {1: 99.5, 2: 0.5%}, shadow: {3: 20%}, "
        "assign: {key: [{header: X-User}]}}\n"
    )
    (found,) = entry_splits(config(text).models, "f.yaml")
    assert (found.name, found.path) == ("b", "f.yaml: models.b")
    split = config(text).models[1].split_spec()
    assert split == found.spec
    assert split is not None
    assert dict(split.weights) == {"1": 995_000, "2": 5_000}
    assert [(s.name, s.target, s.sample_ppm) for s in split.shadows] == [("3", Target("3"), 200_000)]
    assert split.assign.keys == (KeySource(KeyKind.HEADER, "x-user"),)
    assert split.assign.hash.salt == "b"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("split: {1: 90, 2: 9}", "f.yaml:2: models.0: split: the shares come to 99% instead of 100%"),
        ("split: {1: 100}, shadow: {1: 1%}", "version 1 is in the split as well"),
        ("split: {'@a': 100}", "follows no alias"),
        ("shadow: {3: 20}", "f.yaml:2: models.0.shadow.3: expected a percentage such as 1%"),
        ("assign: {}", "f.yaml:2: models.0: assign needs a split"),
        ("split: {1: 100}, assign: {kye: []}", "assign.kye: unknown key; did you mean 'key'?"),
    ],
)
def test_mistakes_in_an_entry(entry: str, expected: str) -> None:
    """With the line of the entry."""
    assert expected in complaint("models:\n- {name: m, path: m, " + entry + "}")


def test_paths_follow_the_configuration_and_state_lies_beside_the_files(tmp_path: Path) -> None:
    """Unless it is told where else."""
    file = tmp_path / "gateway.yaml"
    file.write_text("rollouts: {directory: rollouts}\n")
    rollouts = load_config(file).rollouts
    assert rollouts.directory == tmp_path / "rollouts"
    assert rollouts.state() == tmp_path / "rollout-state"
    assert rollouts.approvals() == tmp_path / "rollout-state" / "approvals.sock"
    file.write_text("rollouts: {directory: rollouts, state_directory: /var/lib/gateway, replica: one}\n")
    rollouts = load_config(file).rollouts
    assert rollouts.state() == Path("/var/lib/gateway")
    assert rollouts.replica_name() == "one"


def test_without_a_directory_there_are_no_rollouts() -> None:
    """Nothing is kept anywhere."""
    rollouts = config("server: {}").rollouts
    assert (rollouts.directory, rollouts.state(), rollouts.approvals()) == (None, None, None)
    assert rollouts.replica_name()


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("{directory: r, state_directory: r/state}", "must not lie in directory"),
        ("{state_directory: s}", "needs a directory of rollout files"),
        ("{directory: r, webhooks: [ftp://x]}", "f.yaml:1: rollouts.webhooks.0: expected a URL"),
        ("{directory: r, settle: 1}", "rollouts.settle: unknown key; did you mean 'settle_s'?"),
    ],
)
def test_mistakes_in_the_section(section: str, expected: str) -> None:
    """With file and line."""
    assert expected in complaint(f"rollouts: {section}")
