from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.commands.failure import Exit
from gateway.commands.serve_config import ServeFlags, build_config

ROOT = Path(__file__).parents[2]


def validate(file: Path, text: str = "") -> Result:
    if text:
        file.write_text(text)
    return CliRunner().invoke(app, ["validate", str(file)])


def make_model(directory: Path, pbtxt: str = "") -> Path:
    (directory / "1").mkdir(parents=True)
    (directory / "1" / "model.onnx").write_bytes(b"not looked into")
    if pbtxt:
        (directory / "config.pbtxt").write_text(pbtxt)
    return directory


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gateway.yaml"


def test_a_file_that_could_be_served_is_summarised(file: Path, tmp_path: Path) -> None:
    """Exit code 0 and the models by name."""
    make_model(tmp_path / "models" / "a", 'name: "a"')
    result = validate(file, "repository: {path: models}\nmodels:\n  - {name: b, path: models/a}\n")
    assert result.exit_code == Exit.OK, result.stderr
    assert "models b; repository" in result.stdout


def test_every_schema_complaint_has_file_and_line(file: Path) -> None:
    """Two mistakes are two lines, each with its own line number."""
    result = validate(file, "server:\n  hots: x\n  ports: {http: 99999}\n")
    assert result.exit_code == Exit.FAILED
    first, second = sorted(result.stderr.strip().splitlines())
    assert first.startswith(f"{file}:2: server.hots: unknown key; did you mean 'host'?")
    assert second.startswith(f"{file}:3: server.ports.http:")


TEXT = """models:
  - name: gone
    path: gone.onnx
  - name: empty
    path: empty
  - name: labelled
    path: good
    labels: {y: missing.txt}
  - name: text
    path: notes.txt
repository:
  path: repository
server:
  http:
    tls:
      cert_file: no.pem
      key_file: notes.txt
"""


def test_every_missing_file_has_the_line_that_names_it(file: Path, tmp_path: Path) -> None:
    """Models, labels, certificates and a repository's config.pbtxt are looked at, all of them at once."""
    make_model(tmp_path / "good")
    make_model(tmp_path / "repository" / "broken", "input [ {\n nonsense: 1 } ]")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("")
    result = validate(file, TEXT)
    assert result.exit_code == Exit.FAILED
    lines = result.stderr.strip().removeprefix("gateway: ").splitlines()
    found = {int(line.removeprefix(f"{file}:").split(":")[0]): line for line in lines}
    for number, text in {
        3: "model 'gone': ",
        5: "model 'empty': ",
        7: "missing.txt: no such readable file of labels",
        10: "expected a readable .onnx file",
        12: "broken/config.pbtxt:2",
        16: "no.pem",
    }.items():
        assert text in found[number]
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        ("server: {ports: {http: 9000,\n grpc: 9000}}", 2, "port 9000 is given twice: for http"),
        ("server:\n  host: 0.0.0.0\n  ports:\n    admin: 8000", 4, "twice: for http and for admin"),
        ("server:\n  host: 300.1.1.1", 2, "'300.1.1.1' is no address"),
        ("server:\n  http:\n    tls: {cert_file: text, key_file: text}", 3, "TLS files cannot be used"),
        ("telemetry:\n  tracing:\n    endpoint: collector:4318", 3, "expected a URL such as http://"),
        ("repository:\n  path: good\n  load_at_start: [a]", 1, "load_at_start needs mode 'explicit'"),
        ("repository:\n  path: .\n  mode: explicit\n  load_at_start: [gone]", 4, "['gone'] are in no repos"),
        ("models:\n- {name: m, path: bad}", 2, "field 'sequence_batching' is not supported"),
        ("models:\n- {name: m, path: odd}", 2, "unable to find backend 'python'"),
        (
            "models:\n- name: m\n  path: good\n  onnxruntime: {intra_op_thread: 1}",
            4,
            "did you mean 'intra_op_threads'",
        ),
        ("defaults:\n  onnxruntime: {row_check: 7}\nmodels:\n- {name: m, path: good}", 2, "'row_check'"),
        (
            "models:\n- name: m\n  path: four\n  batching: {max_batch_rows: 8}",
            3,
            "asks for batches of 8 rows",
        ),
    ],
)
def test_what_serving_would_refuse_is_told_with_its_line(
    file: Path, tmp_path: Path, text: str, line: int, complaint: str
) -> None:
    """Addresses, certificates, the collector, fields of config.pbtxt, options of the backend."""
    make_model(tmp_path / "good")
    make_model(tmp_path / "bad", "sequence_batching { }")
    make_model(tmp_path / "odd", 'backend: "python"')
    make_model(tmp_path / "four", "max_batch_size: 4")
    (tmp_path / "text").write_text("no certificate")
    result = validate(file, text)
    assert result.exit_code == Exit.FAILED, result.stdout
    lines = [
        told for told in result.stderr.strip().removeprefix("gateway: ").splitlines() if complaint in told
    ]
    (told,) = lines
    assert told.startswith(f"{file}:{line}:")


def test_a_missing_configuration_file(tmp_path: Path) -> None:
    """The file is named and the code is that of a failure."""
    result = validate(tmp_path / "no.yaml")
    assert result.exit_code == Exit.FAILED
    assert "no.yaml: cannot be read: No such file" in result.stderr


def test_the_demo_configuration_is_valid() -> None:
    """What `make run` serves passes its own check, and serves every version of digits."""
    result = validate(ROOT / "configs" / "demo.yaml")
    assert result.exit_code == Exit.OK, result.stderr
    config = build_config([], ROOT / "configs" / "demo.yaml", ServeFlags(ports={}))
    assert {m.name: m.path for m in config.models} == {
        name: ROOT / "configs" / ".." / "models" / name for name in ("filetype", "digits")
    }
    versions = config.models[1].versions
    assert versions is not None
    assert versions.all
