"""What one rollout file may say, and what is said about one that may not."""

from pathlib import Path

import jsonschema
import orjson
import pytest
from ruamel.yaml import YAML

from gateway.config.rollout_file import MAX_ROLLOUT_BYTES, RolloutFile, parse_rollout
from gateway.config.rollout_listing import read_rollout
from gateway.core.errors import ConfigError
from gateway.core.rollout import (
    ApproveStep,
    Comparison,
    DisagreeGate,
    ErrorsGate,
    ExternalGate,
    FreezeWindow,
    HeaderOverride,
    KeyKind,
    KeySource,
    OutputRule,
    PauseStep,
    PrometheusGate,
    PromoteStep,
    Requirement,
    RolloutSpec,
    ShadowStep,
    SplitSpec,
    Target,
    WeightStep,
)
from tests.config.rollouts.texts import ROLLOUT, SPLIT

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "configs" / "rollouts").iterdir())
SCHEMA = ROOT / "docs" / "rollout.schema.json"


def parse(text: str) -> RolloutFile:
    return parse_rollout(text.encode(), "f.yaml", "somebody")


def spec(text: str) -> RolloutSpec:
    found = parse(text).spec
    assert isinstance(found, RolloutSpec)
    return found


def complaint(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_the_examples_are_valid(path: Path) -> None:
    """By the program and by the schema that editors take, to which the first line points."""
    assert read_rollout(path).warnings == ()
    schema = orjson.loads(SCHEMA.read_bytes())
    data = orjson.loads(orjson.dumps(YAML(typ="safe").load(path), option=orjson.OPT_NON_STR_KEYS))
    jsonschema.Draft202012Validator(schema).validate(data)
    first = path.read_text().splitlines()[0]
    assert (path.parent / first.removeprefix("# yaml-language-server: $schema=")).resolve() == SCHEMA


def test_the_long_example_means_what_it_says() -> None:
    """Every part arrives in the spec."""
    found = read_rollout(ROOT / "configs" / "rollouts" / "fraud-score.yaml").spec
    assert isinstance(found, RolloutSpec)
    assert (found.name, found.model, found.stable, found.canary) == (
        "fraud-score",
        "fraud",
        Target("@champion"),
        Target("@challenger"),
    )
    rules = (OutputRule("label"), OutputRule("score", Comparison.ABSOLUTE, 0.02))
    (shadow,) = found.shadows
    assert (shadow.target, shadow.sample_ppm, shadow.headroom_ppm, shadow.rules) == (
        Target("42"),
        200_000,
        300_000,
        rules,
    )
    assert found.assign.keys == (
        KeySource(KeyKind.HEADER, "x-user-id"),
        KeySource(KeyKind.JWT, "sub"),
        KeySource(KeyKind.REQUEST_ID),
    )
    assert found.assign.hash.salt == "fraud-2026q3"
    assert found.assign.fallback_stable
    assert found.assign.overrides == (
        HeaderOverride("x-model-arm", frozenset({"canary", "stable"}), "arm:override"),
    )
    assert found.steps == (
        ShadowStep(250_000, 600.0, 7200.0, ("safety", "agreement"), rules=rules),
        WeightStep(10_000, 600.0, 7200.0, ("safety",), Requirement.NO_HARM),
        WeightStep(50_000, 1800.0, 21_600.0, ("safety", "latency")),
        ApproveStep(2, frozenset({"model-risk"}), not_author=True, expires_s=86_400.0),
        WeightStep(250_000, 3600.0, 43_200.0, ("safety", "latency", "drift")),
        WeightStep(500_000, 7200.0, 86_400.0, ("safety", "latency", "drift")),
        PromoteStep(86_400.0, ("safety",)),
    )
    assert found.gates["safety"][1] == ErrorsGate(1.1, 1.5, 0.001, 30, 2000)
    assert found.gates["agreement"] == (DisagreeGate(0.02, 3000, ("country",)),)
    verdict = "http://127.0.0.1:8010/v1/models/fraud/verdict?candidate=canary&baseline=stable"
    assert found.gates["drift"] == (ExternalGate(verdict, 2.0, 10.0),)
    assert found.freeze == (FreezeWindow("0 17 * * FRI", 63 * 3600.0, "Europe/Berlin"),)


def test_a_plain_split() -> None:
    """Versions, shares and shadows; the salt is the model's name."""
    found = parse(SPLIT).spec
    assert isinstance(found, SplitSpec)
    assert dict(found.weights) == {"1": 900_000, "2": 100_000}
    assert [(s.name, s.target, s.sample_ppm) for s in found.shadows] == [("3", Target("3"), 200_000)]
    assert found.assign.hash.salt == "m"


def test_what_may_be_left_out() -> None:
    """The name is the model's, the salt the name, the author the file's owner, stable whatever serves."""
    found = spec(ROLLOUT.replace("name: line\n", "").replace("  stable: 1\n", ""))
    assert (found.name, found.assign.hash.salt, found.author, found.stable) == ("m", "m", "somebody", None)
    assert spec(ROLLOUT + "author: else\n").author == "else"


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("pause: 10m", PauseStep(600.0)),
        ("pause: {}", PauseStep(None)),
        ("pause: {duration: 1h}", PauseStep(3600.0)),
        ("approve: {}", ApproveStep()),
    ],
)
def test_steps_without_traffic(text: str, step: object) -> None:
    """Short and long forms."""
    assert spec(ROLLOUT.replace("- promote", f"- {text}\n- promote")).steps[1] == step


def test_a_prometheus_gate() -> None:
    """`for` and the bounds arrive."""
    gate = 'prometheus: {url: "http://p:9090", query: "up{x=1}", max: 2, for: 1m}'
    (found,) = spec(ROLLOUT.replace("errors: {}", gate)).gates["safety"]
    assert found == PrometheusGate("http://p:9090", "up{x=1}", 2.0, None, 60.0)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "kind: Rollout",
            "kind: Rolout",
            "f.yaml:2: kind: expected Rollout or Split, got 'Rolout'; did you mean",
        ),
        ("kind: Rollout\n", "", "f.yaml:1: kind: expected Rollout or Split"),
        ("gateway/v1", "gateway/v2", "f.yaml:1: apiVersion: Input should be 'gateway/v1'"),
        ("steps:", "step:", "f.yaml:8: step: unknown key; did you mean 'steps'?"),
        ("min_bake", "min_bke", "f.yaml:9: steps.0.min_bke: unknown key; did you mean 'min_bake'?"),
        ("weight: 5%", "weihgt: 5%", "f.yaml:9: steps.0: a step is one of"),
        ("weight: 5%", "weihgt: 5%", "did you mean 'weight'?"),
        ("weight: 5%", "weight: 5%, pause: 1m", "a step is one thing; this is weight and pause"),
        ("weight: 5%", "weight: 5", "f.yaml:9: steps.0.weight: expected a percentage such as 1%"),
        ("weight: 5%", "weight: 0%", "f.yaml:9: steps.0.weight: must be more than 0"),
        ("weight: 5%", "weight: 100%", "f.yaml:9: steps.0.weight: 100% leaves nothing to compare with"),
        ("max_bake: 2h", "max_bake: 10m", "f.yaml:9: steps.0: max_bake must be longer"),
        ("max_bake: 2h", "max_bake: 2", "f.yaml:9: steps.0.max_bake: expected a duration with its unit"),
        ("[safety]", "[saftey]", "no group of gates 'saftey'; there are safety; did you mean 'safety'?"),
        ("[safety]", "[]", "f.yaml:9: steps.0.gates: "),
        ("[safety]", "[safety, safety]", "named twice"),
        ("- promote: {}", "- pause: {}", "f.yaml:10: steps.1: the last step must be promote"),
        ("- promote", "- promote: {}\n- promote", "f.yaml:10: steps.1: promote must be the last step"),
        (
            "- promote: {}",
            "- promote: {keep_stable_warm: 8d}",
            "f.yaml:10: steps.1.promote.keep_stable_warm: longer",
        ),
        ("errors: {}", "error: {}", "unknown key; did you mean 'errors'?"),
        ("errors: {}", "errors: {}\n    srm: {}", "f.yaml:13: gates.safety.0: a gate is exactly one of"),
        (
            "errors: {}",
            "errors: {pass_margin: 1}",
            "f.yaml:13: gates.safety.0.errors: pass_margin 1 must be above",
        ),
        ("errors: {}", "prometheus: {url: x, query: q}", "expected a URL such as"),
        ("errors: {}", 'prometheus: {url: "http://x", query: q}', "give max, min or both"),
        ("errors: {}", 'external: {url: "http://u:p@x/"}', "must not hold credentials"),
        (
            "errors: {}",
            "errors: {}\n  - errors: {}",
            "f.yaml:14: gates.safety.1: the same gate stands here twice",
        ),
        ("errors: {}", "disagree: {max_rate: 1%, shadow: nxt}", "no shadow 'nxt'; there are canary"),
        ("  safety:\n  - errors: {}", "  safety: []", "f.yaml:12: gates.safety: a group without gates"),
        ('"@challenger"', "@challenger", "f.yaml:7: not YAML: "),
        ('"@challenger"', "@challenger", "write an alias in quotes"),
        ("name: line", "name: events", "f.yaml:3: name: a rollout cannot be called 'events'"),
        (
            "gates:\n  safety",
            "x: {[a, {b: [c]}]: 1}\ngates:\n  safety",
            "f.yaml:11: keys must be text, got a list",
        ),
        ("name: line", '"na\\Lme": line', "f.yaml:3: na\\u2028me: unknown key; did you mean 'name'?"),
        ('"@challenger"', '"mlflow://x@y"', "f.yaml:7: targets.canary: expected an alias"),
        ('"@challenger"', "1", "f.yaml:7: targets.canary: stable and canary are both 1"),
        ('  canary: "@challenger"\n', "", "f.yaml:5: targets: steps need a canary"),
        ("model: m", "model: m\nmodel: n", "f.yaml:5: "),
        ("model: m", "model: &a m", "f.yaml:4: anchors and aliases are not allowed"),
        (
            "gates:\n  safety",
            'freeze: [{cron: "* *", for: 1h}]\ngates:\n  safety',
            "f.yaml:11: freeze.0.cron: expected five",
        ),
        (
            "gates:\n  safety",
            'freeze: [{cron: "61 * * * *", for: 1h}]\ngates:\n  safety',
            "freeze.0.cron: '61 * * * *' is no cron expression",
        ),
        (
            "gates:\n  safety",
            'freeze: [{cron: "0 17 * * FRI", for: 1h, tz: Europe/Berln}]\ngates:\n  safety',
            "freeze.0.tz: no time zone 'Europe/Berln'",
        ),
        (
            "gates:\n  safety",
            "assign: {overrides: [{header: x-arm, in: [cannary]}]}\ngates:\n  safety",
            "assign.overrides.0.in: no arm 'cannary'; there are stable, canary; did you mean 'canary'?",
        ),
        (
            "gates:\n  safety",
            "assign: {holdout: 96%}\ngates:\n  safety",
            "steps.0.weight: 5% does not fit beside the holdout of 96%",
        ),
        (
            "gates:\n  safety",
            "assign: {key: [{request_id: true}, {header: x}]}\ngates:\n  safety",
            "request_id is always there",
        ),
        ("gates:\n  safety", "test: {alpha_abort: 0}\ngates:\n  safety", "f.yaml:11: test.alpha_abort: "),
        ("gates:\n  safety", "test: {alpha_abort: 0.6}\ngates:\n  safety", "f.yaml:11: test.alpha_abort: "),
        ("- promote", "- approve: {count: 0}\n- promote", "f.yaml:10: steps.1.approve.count: "),
    ],
)
def test_mistakes_are_named_with_file_line_and_key(old: str, new: str, expected: str) -> None:
    """Every complaint says where, what and, for a misspelt word, what was meant."""
    assert old in ROLLOUT
    with pytest.raises(ConfigError) as caught:
        parse_rollout(ROLLOUT.replace(old, new, 1).encode(), "f.yaml", max_window_s=7 * 86_400.0)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("2: 10", "2: 11", "f.yaml:4: split: the shares come to 101% instead of 100%"),
        ("2: 10", "2: ten", "f.yaml:4: split.2: expected a percentage"),
        ("2: 10", "'@prod': 10", "follows no alias"),
        ("{3: 20%}", "{2: 20%}", "f.yaml:5: shadow: version 2 is in the split as well"),
        ("split: {1: 90, 2: 10}\nshadow: {3: 20%}", "", "f.yaml:1: file: give split, shadow or both"),
        ("model: m", "model: m\nsteps: []", "f.yaml:4: steps: unknown key"),
    ],
)
def test_mistakes_in_a_split(old: str, new: str, expected: str) -> None:
    """The same for the plain form."""
    assert expected in complaint(SPLIT.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "- promote",
            "- {weight: 1%, min_bake: 1m, max_bake: 2m, gates: [safety]}\n- promote",
            "f.yaml:10: steps.1.weight: 1% is less than the 5% of a step before",
        ),
        ("gates:\n  safety", "gates:\n  idle: [{srm: {}}]\n  safety", "f.yaml:12: gates.idle: no step names"),
        (
            "errors: {}",
            "disagree: {max_rate: 1%}",
            "f.yaml:9: steps.0.gates: group 'safety' compares the canary",
        ),
    ],
)
def test_oddities_are_warned_of(old: str, new: str, expected: str) -> None:
    """The file is taken all the same."""
    (warning,) = parse(ROLLOUT.replace(old, new, 1)).warnings
    assert expected in warning


def test_all_mistakes_are_reported_at_once() -> None:
    """Up to a bound, so that a file of nonsense does not fill the log."""
    assert len(complaint(ROLLOUT.replace("5%", "5").replace("errors", "errs") + "x: 1\n").splitlines()) == 3
    many = "".join(f"k{n}: 1\n" for n in range(500))
    assert len(complaint(ROLLOUT + many).splitlines()) == 51


@pytest.mark.parametrize(
    ("text", "place"), [(b"a: 1\nb: \xff\n", "f.yaml:2: "), (b"a: 1\n\nb: \x01\n", "f.yaml:3: ")]
)
def test_what_is_no_text_is_told_with_its_line(text: bytes, place: str) -> None:
    """Bytes of another encoding, control characters."""
    with pytest.raises(ConfigError) as caught:
        parse_rollout(text, "f.yaml")
    assert str(caught.value).startswith(place + "not YAML")


def test_a_file_that_is_too_large_is_not_parsed() -> None:
    """Its size is said."""
    assert "at most 65536 are read" in complaint("#" * (MAX_ROLLOUT_BYTES + 1))


def test_json_is_read_too() -> None:
    """It is YAML as well."""
    data = YAML(typ="safe").load(ROLLOUT)
    assert parse_rollout(orjson.dumps(data), "f.json").spec == parse_rollout(ROLLOUT.encode(), "f.yaml").spec
