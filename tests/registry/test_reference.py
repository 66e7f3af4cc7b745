"""References to models of registries: every form, and every mistake told with what to write instead."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import ConfigError
from gateway.registry.reference import ModelReference, Selector, SelectorKind, parse_reference, parse_selector

BASE = Path("/etc/gateway")
POLICY = Selector()
ALL = Selector(SelectorKind.ALL)
CHAMPION = Selector(SelectorKind.ALIAS, "champion")


def label(text: str) -> Selector:
    return Selector(SelectorKind.LABEL, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mlflow://fraud@champion", ModelReference("mlflow", "", "fraud", CHAMPION)),
        ("mlflow://fraud", ModelReference("mlflow", "", "fraud", POLICY)),
        ("mlflow://fraud/", ModelReference("mlflow", "", "fraud", POLICY)),
        ("mlflow://fraud/3", ModelReference("mlflow", "", "fraud", label("3"))),
        ("mlflow://fraud@3", ModelReference("mlflow", "", "fraud", label("3"))),
        ("mlflow://fraud@v3", ModelReference("mlflow", "", "fraud", label("3"))),
        ("mlflow://fraud@latest", ModelReference("mlflow", "", "fraud", Selector(SelectorKind.LATEST))),
        ("mlflow://fraud@all", ModelReference("mlflow", "", "fraud", Selector(SelectorKind.ALL))),
        ("mlflow://main.risk.fraud@champion", ModelReference("mlflow", "", "main.risk.fraud", CHAMPION)),
        ("mlflow://card fraud@champion", ModelReference("mlflow", "", "card fraud", CHAMPION)),
        ("mlflow://card%20fraud@champion", ModelReference("mlflow", "", "card fraud", CHAMPION)),
        ("s3://models/fraud", ModelReference("s3", "s3://models", "fraud", POLICY)),
        ("s3://models/a/b/fraud@champion", ModelReference("s3", "s3://models/a/b", "fraud", CHAMPION)),
        ("s3://models/fraud@1.4.2", ModelReference("s3", "s3://models", "fraud", label("1.4.2"))),
        ("s3://models/fraud@v1.4", ModelReference("s3", "s3://models", "fraud", label("v1.4"))),
        ("gs://m/f@1.x", ModelReference("gs", "gs://m", "f", Selector(SelectorKind.PREFIX, "1.x"))),
        ("gs://m/f@1.4.*", ModelReference("gs", "gs://m", "f", Selector(SelectorKind.PREFIX, "1.4.x"))),
        ("az://c/fraud@7", ModelReference("az", "az://c", "fraud", label("7"))),
        ("https://h:9000/b/fraud@7", ModelReference("https", "https://h:9000/b", "fraud", label("7"))),
        ("file:///srv/models/fraud", ModelReference("file", "file:///srv/models", "fraud", POLICY)),
        ("file:///srv/my%20models/f", ModelReference("file", "file:///srv/my%20models", "f", POLICY)),
        ("/srv/my models/f", ModelReference("file", "file:///srv/my%20models", "f", POLICY)),
        ("/srv/@team/fraud@champion", ModelReference("file", "file:///srv/%40team", "fraud", CHAMPION)),
        ("models/m@all", ModelReference("file", "file:///etc/gateway/models", "m", ALL)),
        ("../models/fraud/", ModelReference("file", "file:///etc/models", "fraud", POLICY)),
        ("./fraud", ModelReference("file", "file:///etc/gateway", "fraud", POLICY)),
        ("/fraud", ModelReference("file", "file:///", "fraud", POLICY)),
    ],
)  # fmt: skip
def test_forms(text: str, expected: ModelReference) -> None:
    """Every form is read, and its canonical text means the same."""
    assert parse_reference(text, BASE) == expected
    assert parse_reference(str(expected), BASE) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is empty or has blanks around it; expected mlflow://NAME@ALIAS, s3://"),
        (" s3://b/m", "it is empty or has blanks around it"),
        ("mlfow://fraud@champion", "unknown scheme 'mlfow', expected .*; did you mean 'mlflow://'?"),
        ("s3n://b/m", "unknown scheme 's3n', .*; did you mean 's3://'?"),
        ("gcs://b/m", "did you mean 'gs://'?"),
        ("S3://b/m", "unknown scheme 'S3', .*did you mean 's3://'?"),
        ("ftp://h/m", "unknown scheme 'ftp', expected mlflow://NAME@ALIAS, "),
        ("models:/fraud@champion", "write 'mlflow://fraud@champion'"),
        ("mlflow:fraud", "'//' must follow the scheme: write 'mlflow://fraud'"),
        ("file:/srv/m", "write 'file:///srv/m'"),
        ("s3:/bucket/m", "'//' must follow the scheme: write 's3://bucket/m'"),
        ("file://srv/models/m", "a file URL has three slashes: write 'file:///srv/models/m'"),
        ("mlflow://", "it names no model"),
        ("mlflow://@champion", "it names no model"),
        ("mlflow://m/champion", "'champion' is no version number of MLflow; for an alias write mlflow://m@champ"),
        ("mlflow://fraud/aliases/champion", "write mlflow://fraud@champion"),
        ("mlflow://fraud/1.2", "'1.2' is no version number of MLflow"),
        ("mlflow://fraud/03", "'03' is no version number"),
        ("mlflow://fraud/3@champion", "it names a version twice"),
        ("mlflow://fraud@1.x", "MLflow counts versions 1, 2, 3, ...: none begins '1.'"),
        ("mlflow://fraud@1.2", "'1.2' is no version number of MLflow, which counts 1, 2, 3"),
        ("mlflow://tracking:5000/fraud", "the address of an MLflow server belongs under 'registries:'"),
        ("mlflow://https://tracking/fraud", "the address of an MLflow server belongs under 'registries:'"),
        ("s3://bucket", "it names no model in the store"),
        ("s3://bucket@champion", "it names no model in the store"),
        ("s3://", "it names no model in the store"),
        ("s3:///m", "it names no model in the store"),
        ("s3://bucket/", "it names no model in the store"),
        ("s3://b/fraud/7", "'7' is a version, not a model: write '.../fraud@7'"),
        ("s3://b/fraud/1.4.2", "'1.4.2' is a version, not a model: write '.../fraud@1.4.2'"),
        ("s3://b/fraud/aliases/champion", "it names an alias, not a model: write '.../fraud@champion'"),
        ("s3://b/a//m", "its path has empty parts"),
        ("s3://b/../m", "its path has empty parts, '.' or '..'"),
        ("s3://b/p/@champion", "no model is named before the '@'"),
        ("s3://b/m?versionId=3", "a source has no query and no fragment"),
        ("s3://b/m@", "'' selects no version: expected an alias"),
        ("s3://b/m@03", "'03' selects no version: .*; did you mean '3'?"),
        ("s3://b/m@1.2.3.4", "'1.2.3.4' selects no version"),
        ("s3://b/m@x@y", "'x@y' selects no version"),
        ("s3://b/m@pro duction", "'pro duction' selects no version"),
        ("s3://b/%00", "'%00' cannot be a model's name"),
        ("~/models/m", "'~' is not expanded: write the whole path"),
        ("/srv/models/m.onnx", "it is a model file, not a model of a registry: use 'path:' for it"),
        ("/srv/models/..", "its last part must be the model's name"),
        (".", "its last part must be the model's name"),
        ("/srv/\0/m", "no file can have such a name"),
    ],
)  # fmt: skip
def test_mistakes(text: str, says: str) -> None:
    """Each is refused with what is wrong and what to write."""
    with pytest.raises(ConfigError, match=says) as caught:
        parse_reference(text, BASE)
    assert str(caught.value).startswith("source ")


@pytest.mark.parametrize(
    "text", ["s3://key:hunter2@bucket/m", "https://u:hunter2@h/m", "s3://b/m?sig=hunter2"]
)
def test_passwords_are_not_repeated(text: str) -> None:
    """What may be a credential is in no message."""
    with pytest.raises(ConfigError) as caught:
        parse_reference(text, BASE)
    assert "hunter2" not in str(caught.value)
    assert "registries:" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("champion", SelectorKind.ALIAS, "champion"),
        ("a/b_1.2-x".replace("/", "."), SelectorKind.ALIAS, "a.b_1.2-x"),
        ("Latest", SelectorKind.LATEST, ""),
        ("ALL", SelectorKind.ALL, ""),
        ("12", SelectorKind.LABEL, "12"),
        ("v2", SelectorKind.LABEL, "v2"),
        ("0.1", SelectorKind.LABEL, "0.1"),
        ("v1.X", SelectorKind.PREFIX, "v1.x"),
        ("x", SelectorKind.ALIAS, "x"),
    ],
)
def test_selectors(text: str, kind: SelectorKind, value: str) -> None:
    """Labels, lines of versions and words are told from aliases."""
    assert parse_selector(text) == Selector(kind, value)


@given(
    st.text(max_size=60) | st.builds("{}://{}".format, st.sampled_from(["s3", "mlflow", "file"]), st.text())
)
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but ConfigError is raised, and what is read is read the same from its canonical text."""
    try:
        reference = parse_reference(text, BASE)
    except ConfigError:
        return
    assert reference.model
    assert parse_reference(str(reference), BASE) == reference
