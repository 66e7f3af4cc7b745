"""`gateway models show` against a running gateway that follows a directory of models, and its page drawn."""

from __future__ import annotations

import copy
import io
import json
import shutil
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.commands.failure import Exit
from gateway.commands.model_page import fetch_text, model_page, version_name
from tests.acceptance.process import ROOT, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.acceptance.process import RunningGateway

UNUSED = "127.0.0.1:1"


def gateway(*arguments: str, columns: int = 80) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": str(columns)})


def publish(store: Path, label: str, model: Path | None, **files: str) -> None:
    """Put a version of `digits` into the directory; without a model a file that is none."""
    directory = store / "digits" / label
    directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / name.replace("_json", ".json").replace("_md", ".md")).write_text(text)
    if model is None:
        (directory / "model.onnx").write_text("garbage")
    else:
        shutil.copy(model, directory / "model.onnx")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """Two versions of digits that serve, one that cannot, and a model whose alias is missing."""
    directory = tmp_path_factory.mktemp("registry")
    store = directory / "store"
    lineage = {"run_id": "7c1d", "tags": {"team": "vision"}, "datasets": [{"name": "mnist", "digest": "9f"}]}
    good = ROOT / "models" / "digits" / "1" / "model.onnx"
    publish(store, "1.4.1", good)
    publish(
        store, "1.4.2", good, lineage_json=json.dumps(lineage), MODEL_CARD_md="# Digits\n\nRead postcodes."
    )
    publish(store, "1.5.0", None)
    aliases = store / "digits" / "aliases"
    aliases.mkdir()
    (aliases / "champion").write_text("1.4.2")
    config = directory / "gateway.yaml"
    config.write_text(
        f"""
cache: {{directory: {directory / "cache"}, free_disk_reserve: 0}}
registries: {{store: {{directory: {{path: {store}, settle_s: 0.01}}}}}}
models:
  - {{name: digits, source: {store}/digits@all}}
  - {{name: gone, source: {store}/digits@nobody, required: false}}
  - {{name: asleep, source: {store}/digits@champion, lazy: true}}
"""
    )
    with serving(directory / "log", "--config", config) as running:
        yield running


def admin(served: RunningGateway) -> str:
    return f"127.0.0.1:{served.ready['admin_port']}"


def show(served: RunningGateway, *arguments: str, columns: int = 80) -> Result:
    return gateway("models", "show", *arguments, "--admin-url", admin(served), columns=columns)


@pytest.mark.parametrize("columns", [80, 160])
def test_the_page_of_a_model(served: RunningGateway, columns: int) -> None:
    """Everything asked of it is there, within the terminal's width."""
    result = show(served, "digits", columns=columns)
    assert result.exit_code == Exit.OK, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "digits  READY  version 1000004000002 (1.4.2) answers"
    assert max(map(len, lines)) <= columns
    text = " ".join(result.stdout.split())
    for words in (
        "registry store up to date",
        "aliases champion = 1.4.2",
        "1000005000000 (1.5.0): load: model 'digits': not a complete ONNX file",
        "Version 1000004000002 (1.4.2), ready after",
        "input pixels FP32[-1,64]",
        "output probabilities FP32[-1,10]",
        "onnxruntime_onnx on cpu with 1 instance; requests under way: 0",
        "run id 7c1d",
        "tags team=vision",
        "datasets name=mnist, digest=9f",
        "Model card # Digits Read postcodes.",
    ):
        assert words in text
    steps = [line.split()[0] for line in lines if "━" in line]
    assert "load" in steps


def test_another_version_in_detail(served: RunningGateway) -> None:
    """By label or by number; of one that failed there is no signature."""
    by_label = show(served, "digits", "--version", "1.5.0").stdout
    assert "Version 1000005000000 (1.5.0), failed after" in by_label
    assert "Signature" not in by_label
    by_number = show(served, "digits", "--version", "1000004000001").stdout
    assert "Signature of version 1000004000001 (1.4.1)" in by_number
    unknown = show(served, "digits", "--version", "7")
    assert unknown.exit_code == Exit.FAILED
    assert "no version '7'; there are: 1000004000001 (1.4.1), 1000004000002 (1.4.2)" in unknown.stderr


def test_models_without_a_loaded_version(served: RunningGateway) -> None:
    """One whose alias is missing says so; one that is loaded on first use is ready for it."""
    gone = show(served, "gone").stdout
    assert gone.startswith("gone  NOT READY\n")
    assert " ".join(gone.split()).count("'digits' has no alias 'nobody'") == 1
    assert "MISSING for" in gone
    asleep = show(served, "asleep").stdout
    assert asleep.startswith("asleep  READY  nothing of it is loaded now\n")
    assert "loaded on first use" in asleep


def test_json_is_the_page_of_the_port(served: RunningGateway) -> None:
    """Everything the administration port says, times aside."""
    page = json.loads(show(served, "digits", "--json").stdout)
    with urllib.request.urlopen(f"http://{admin(served)}/models/digits", timeout=30) as reply:
        direct = json.load(reply)
    assert page["versions"] == direct["versions"]
    assert [v["label"] for v in page["versions"]] == ["1.4.1", "1.4.2", "1.5.0"]


def test_the_table_of_all_models(served: RunningGateway) -> None:
    """Labels and exact states come from the administration port; reasons stand below the table."""
    ports = served.ready
    arguments = ["models", "--url", served.http, "--interval-s", "0.01"]
    arguments += ["--metrics-url", f"127.0.0.1:{ports['metrics_port']}"]
    text = gateway(*arguments, "--admin-url", admin(served), columns=140).stdout
    assert "1000004000002 (1.4.2)" in text
    assert "digits 1000005000000 (1.5.0): FAILED: load: model 'digits'" in text
    without = gateway(*arguments, "--admin-url", UNUSED, columns=140).stdout
    assert "1.4.2" not in without
    assert "digits 1000005000000: UNAVAILABLE: load: model 'digits'" in without


def test_wait_returns_when_the_model_is_ready(served: RunningGateway) -> None:
    """Nothing is printed; a model that does not come is an error with its reason."""
    ready = gateway("models", "--wait", "digits", "--url", served.http)
    assert (ready.exit_code, ready.output) == (Exit.OK, "")
    gone = gateway("models", "--wait", "gone", "--timeout-s", "0", "--url", served.http)
    assert gone.exit_code == Exit.FAILED
    assert "not ready after 0 s: UNAVAILABLE: resolve: 'digits' has no alias 'nobody'" in gone.stderr
    unknown = gateway("models", "--wait", "nothing", "--timeout-s", "0", "--url", served.http)
    assert "there is no such model" in unknown.stderr


def test_unknown_models_and_wrong_ports(served: RunningGateway) -> None:
    """The names that may be meant, and which port it should have been."""
    unknown = show(served, "digit")
    assert unknown.exit_code == Exit.FAILED
    assert "no model 'digit'; did you mean 'digits'?" in unknown.stderr
    wrong = gateway("models", "show", "digits", "--admin-url", served.http)
    assert wrong.exit_code == Exit.FAILED
    assert "is it the administration port" in wrong.stderr


@pytest.mark.parametrize(
    "arguments", [["show", "m", "--admin-url", UNUSED], ["--wait", "m", "--timeout-s", "0"]]
)
def test_no_gateway(arguments: list[str]) -> None:
    """3, and the option that names another address."""
    result = gateway("models", *arguments, *([] if "show" in arguments else ["--url", UNUSED]))
    assert result.exit_code == Exit.UNREACHABLE
    assert ("--admin-url" if "show" in arguments else "--url") in result.stderr


@pytest.mark.parametrize("arguments", [["--admin-url", UNUSED, "show", "m"], ["show"], ["nonsense"]])
def test_wrong_command_lines(arguments: list[str]) -> None:
    """2: options before the sub-command would not reach it."""
    result = gateway("models", *arguments)
    assert result.exit_code == Exit.USAGE
    assert result.stderr.strip()


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"model": "m", "ready": true, "registry": 3}', b"<html>"])
def test_whoever_answers_otherwise_is_no_administration_port(stub: Any, body: bytes) -> None:
    """One line, no traceback."""
    stub.answers["GET", "/models/m"] = (200, {}, body)
    result = gateway("models", "show", "m", "--admin-url", stub.url)
    assert result.exit_code == Exit.FAILED
    assert result.stderr.count("\n") == 1
    assert "port" in result.stderr


# The page itself, of what is too short or too rare to meet.

VERSION: dict[str, Any] = {
    "model": "fraud",
    "version": 3,
    "label": "3",
    "aliases": ["champion"],
    "digest": "d",
    "content_digest": "ab" * 32,
    "state": "READY",
    "reason": "",
    "since": 400.0,
    "memory_bytes": 231_000_000,
    "leases": 2,
    "done_bytes": 0,
    "total_bytes": 0,
    "claims": ["mlflow", "rollout"],
    "steps": [{"state": "NEW", "began": 0.0, "seconds": 0.0}],
    "origin": {"registry": "mlflow", "source": "mlflow://fraud@champion"},
    "lineage": {},
    "signing": None,
    "signature": None,
    "platform": "onnxruntime_onnx",
    "devices": [],
}
PAGE: dict[str, Any] = {
    "now": 1000.0,
    "model": "fraud",
    "ready": True,
    "default_version": 3,
    "reason": "",
    "registry": {
        "source": "mlflow://fraud@champion",
        "registry": "mlflow",
        "status": "ok",
        "since": 0.0,
        "stale_since": None,
        "last_ok": 997.0,
        "message": "",
        "aliases": {"champion": "3"},
        "next_poll_s": 7.0,
    },
    "versions": [VERSION],
}


def drawn(page: dict[str, Any], columns: int = 80, chosen: str = "") -> str:
    out = io.StringIO()
    Console(file=out, width=columns, highlight=False).print(model_page(page, chosen))
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def changed(version: dict[str, Any] | None = None, registry: dict[str, Any] | None = None) -> dict[str, Any]:
    page = copy.deepcopy(PAGE)
    page["versions"][0].update(version or {})
    page["registry"].update(registry or {})
    return page


def test_a_stale_registry_says_since_when() -> None:
    """From the last good answer on, with what is served meanwhile."""
    stale = {"status": "stale", "stale_since": 400.0, "since": 900.0, "message": "resolve: no answer"}
    assert "STALE for 10 min: resolve: no answer; next look in 7 s" in drawn(changed(registry=stale))


def test_a_registry_that_is_being_asked() -> None:
    """There is no next look to name."""
    assert "up to date 3 s ago\n" in drawn(changed(registry={"next_poll_s": None}))


def test_a_fetch_under_way() -> None:
    """Percent and bytes, and its steps beside those of the version that answers."""
    page = changed()
    steps = [
        {"state": "NEW", "began": 0.0, "seconds": 1.0},
        {"state": "FETCHING", "began": 1.0, "seconds": 9.0},
    ]
    fetching = {
        "version": 4,
        "label": "4",
        "state": "FETCHING",
        "aliases": [],
        "steps": steps,
        "memory_bytes": 0,
    }
    page["versions"].append({**VERSION, **fetching, "done_bytes": 120_000_000, "total_bytes": 231_000_000})
    text = drawn(page, 120)
    assert "FETCHING 51 % (120.0 of 231.0 MB)" in text
    assert "Version 3, ready after 0 ms\n  wait  0 ms\n" in text
    assert "Version 4, so far 10 s" in text
    assert f"  wait   1.0 s  {'━' * 3}\n  fetch  9.0 s  {'━' * 24}\n" in text


def test_who_signed() -> None:
    """By whom and what; or why it does not count, which no reader may miss."""
    good = {"signed": True, "by": "alice@example.com", "detail": "4 files"}
    assert "signed  by alice@example.com: 4 files" in drawn(changed({"signing": good}))
    bad = {"signed": False, "by": "", "detail": "there is no model.sig"}
    assert "signed  NO: there is no model.sig" in drawn(changed({"signing": bad}))


def test_text_of_a_registry_cannot_steer_the_terminal() -> None:
    """Escape sequences are taken out wherever a registry's own words are drawn; markup is text."""
    evil = "\x1b]0;owned\x07[red]x[/red]\x9b2J"
    told = {"description": evil, evil: evil, "model_card": evil, "tags": {evil: [evil]}}
    page = changed({"label": evil, "aliases": [evil], "reason": evil, "claims": [evil], "lineage": told})
    page["registry"].update({"source": evil, "message": evil, "status": "stale", "aliases": {evil: evil}})
    page["model"] = evil
    text = drawn(page, 200)
    assert not {c for c in text if ord(c) < 32 or 127 <= ord(c) < 160} - {"\n"}
    assert "[red]x[/red]" in text


def test_lineage_of_any_shape() -> None:
    """Dates for people, nested values in short, what is long is cut."""
    told = {
        "created_s": 0,
        "metrics": {"auc": 0.9, "deep": {"a": [1]}},
        "long": "y" * 9000,
        "none": None,
        "odd": [[]],
    }
    text = drawn(changed({"lineage": told}))
    assert "created  1970-01-01 00:00:00 UTC" in text
    assert 'auc=0.9, deep={"a": [1]}' in text
    assert "(--json has it all)" in " ".join(text.split())
    assert len(text) < 4000
    drawn(changed({"lineage": {"created_s": 1e300, "model_card": 5}}))


def test_a_long_model_card_is_cut() -> None:
    """Its beginning, and how much more there is."""
    card = "\n".join(f"line {n}" for n in range(50))
    text = drawn(changed({"lineage": {"model_card": card}}))
    assert "line 19\n" in text
    assert "line 20" not in text
    assert "... 30 more lines" in text


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_any_width(columns: int) -> None:
    """A narrow terminal gets a long page."""
    lines = drawn(changed({"reason": "a long reason " * 20}), columns).splitlines()
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [
        (0, 0, ""),
        (5_000_000, 0, "(5.0 MB)"),
        (0, 231_000_000, "0 % (0 bytes of 231.0 MB)"),
        (120_000_000, 231_000_000, "51 % (120.0 of 231.0 MB)"),
        (230_999_999, 231_000_000, "99 % (231.0 of 231.0 MB)"),
        (231_000_000, 231_000_000, "100 % (231.0 of 231.0 MB)"),
        (9, 3, "100 % (9 of 3 bytes)"),
    ],
)
def test_how_far_a_fetch_is(done: int, total: int, text: str) -> None:
    """A hundred percent is said of what is done alone."""
    assert fetch_text(done, total) == text


def test_names_of_versions() -> None:
    """The registry's own name where it is another."""
    assert version_name(3, "") == version_name("3", "3") == "3"
    assert version_name(1_000_004_000_002, "1.4.2") == "1000004000002 (1.4.2)"
