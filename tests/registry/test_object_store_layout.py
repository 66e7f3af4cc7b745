"""What a list of files says of a model: versions, aliases, faults. And what lineage files say."""

import json
from pathlib import PurePosixPath
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.registry import RegistryError
from gateway.registry.labels import number_of
from gateway.registry.lineage import MAX_BYTES, read_lineage
from gateway.registry.stored_versions import (
    StoredObject,
    arrange,
    check_model_name,
    fault_of_path,
    printable,
    same_version,
)


def stored(*paths: str, size: int = 5, etag: str = '"e"') -> list[StoredObject]:
    return [StoredObject(path=path, size=size, etag=etag) for path in paths]


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (["1/weights.bin"], "no model file"),
        (["1/.git/model.onnx"], "no model file"),
        (["1/model.onnx", "1/.incomplete"], "still being uploaded"),
        (["1/model.onnx", "1/sub/x.part"], "still being written"),
        (["1/model.onnx", "1/../2/model.onnx"], "leads elsewhere"),
        (["1/model.onnx", "1//x"], "leads elsewhere"),
        (["1/model.onnx", "1/a\\b"], "characters"),
        (["1/model.onnx", "1/a\nb"], "characters"),
        (["1/model.onnx", "1/a\udcff"], "characters"),
        (["1/model.onnx", "1/a\u202eb"], "characters"),
        (["1/model.onnx", "1/" + "n" * 256], "too long"),
        (["1/model.onnx", "1/" + "nn/" * 400 + "n"], "too long"),
        (["1/model.onnx", "1/model.onnx/part"], "a file and a directory"),
    ],
)
def test_a_version_that_cannot_be_served_says_why(paths: list[str], why: str) -> None:
    """The other version is not touched by it."""
    model = arrange(stored(*paths, "5/model.onnx"))
    assert list(model.versions) == ["5"]
    assert why in {**model.unusable, **model.moving}["1"]


@pytest.mark.parametrize("path", ["1/model.onnx", "1/deep/er/net.onnx", "1/MLmodel", "1/data/model.onnx"])
def test_a_model_file_makes_a_version(path: str) -> None:
    """Which of several is loaded is decided later."""
    assert arrange(stored(path)).versions.keys() == {"1"}


def test_objects_that_stand_for_folders_are_no_files() -> None:
    """Consoles of object stores make them, empty."""
    marks = stored("1", "1/sub", "aliases", size=0)
    version = arrange([*marks, *stored("1/model.onnx", "1/sub/w.bin")]).versions["1"]
    assert version.objects.keys() == {"model.onnx", "sub/w.bin"}


def test_what_lies_beside_versions_is_none() -> None:
    """Nor is it a fault."""
    model = arrange(stored("1/model.onnx", "warmup/x", ".git/HEAD", "config.pbtxt", "labels.txt"))
    assert model.versions.keys() == {"1"}
    assert not model.unusable
    assert not model.moving
    assert model.beside.keys() == {"config.pbtxt", "labels.txt"}


def test_of_equal_labels_one_is_served() -> None:
    """The same on every gateway, in whatever order the store lists them."""
    paths = [f"{label}/model.onnx" for label in ("v7", "7", "1.4.0", "v1.4", "1.4")]
    for order in (paths, paths[::-1]):
        model = arrange(stored(*order))
        assert model.versions.keys() == {"7", "1.4"}
        assert model.unusable["v7"] == "it is the same version as '7', which is there too"
        assert model.unusable.keys() == {"v7", "1.4.0", "v1.4"}


def test_aliases_are_the_files_directly_below_theirs() -> None:
    """Hidden ones and folders are none."""
    model = arrange(stored("aliases/champion", "aliases/.tmp", "aliases/team/x", "aliases/a\nb", "aliases"))
    assert model.aliases.keys() == {"champion"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (stored("1/model.onnx"), stored("1/model.onnx", etag='"f"')),
        (stored("1/model.onnx"), stored("1/model.onnx", size=6)),
        (stored("1/model.onnx"), stored("1/model.onnx", "1/w.bin")),
        (stored("1/a.onnx"), stored("1/b.onnx")),
    ],
)
def test_another_file_makes_another_revision(first: list[StoredObject], second: list[StoredObject]) -> None:
    """By its name, its size or its etag."""
    assert arrange(first).versions["1"].revision != arrange(second).versions["1"].revision


LABELS = ["1", "2", "1.4", "1.4.0", "v2", "01", "latest"]
NAMES = ["model.onnx", "w.bin", "x.part", ".hidden", ".incomplete", "_UPLOADING", "config.pbtxt"]
ODD = ["", "..", ".", "a\\b", "\udcff", "aliases", "champion", "warmup"]
parts = st.sampled_from([*LABELS, *NAMES, *ODD])
paths = st.lists(parts, min_size=1, max_size=4).map("/".join)
objects = st.lists(
    st.builds(StoredObject, path=paths, size=st.integers(0, 3), etag=st.sampled_from(["a", "b"])), max_size=12
)


@given(objects, st.randoms())
def test_whatever_is_listed_only_whole_versions_are_offered(
    listed: list[StoredObject], random: Random
) -> None:
    """Numbers are distinct, paths stay below the version, texts can be shown, and no order matters."""
    model = arrange(listed)
    numbers = [version.number for version in model.versions.values()]
    assert len(set(numbers)) == len(numbers)
    for label, version in model.versions.items():
        assert version.number == number_of(label)
        assert label not in model.unusable
        for path in version.objects:
            assert fault_of_path(path) is None
            assert not any(part.startswith(".") for part in PurePosixPath(path).parts)
        assert f"{label}/_UPLOADING" not in {seen.path for seen in listed}
    assert all(text.isprintable() for pair in model.unusable.items() for text in pair)
    unique = list({seen.path: seen for seen in listed}.values())
    shuffled = list(unique)
    random.shuffle(shuffled)
    one, other = arrange(unique), arrange(shuffled)
    assert {k: v.revision for k, v in one.versions.items()} == {
        k: v.revision for k, v in other.versions.items()
    }
    assert one.unusable.keys() == other.unusable.keys()


@given(st.text())
def test_any_text_can_be_shown(text: str) -> None:
    """On one line, and not for ever."""
    assert printable(text).isprintable()
    assert len(printable(text)) <= 100
    printable(text).encode()


@pytest.mark.parametrize("name", ["", "..", "a/..", "/a", "a//b", "a\0", "a\\b", "\udcff"])
def test_a_name_no_model_can_have_never_passes(name: str) -> None:
    """Trying again cannot help."""
    with pytest.raises(RegistryError) as caught:
        check_model_name(name)
    assert not caught.value.may_pass


def test_a_label_is_found_however_it_is_written() -> None:
    """By its number; what is no label stays what it is."""
    assert same_version("v1.4.0", ["1.3", "1.4"]) == "1.4"
    assert same_version("1.4", ["v1.4.0", "1.4"]) == "1.4"
    assert same_version("9", ["1.4"]) == "9"
    assert same_version("nonsense", ["1.4"]) == "nonsense"


def test_lineage_tells_json_and_card() -> None:
    """Side by side."""
    assert read_lineage(b'{"run_id": "r"}', b"# card") == {"run_id": "r", "model_card": "# card"}
    assert read_lineage(None, None) == {}


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"null", b"{", b"\xff", b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"a": 1e999}'),
        *(b"[" * 60_000, b'{"a": ' + b"9" * 5000 + b"}", b'"' + b"x" * MAX_BYTES + b'"'),
    ],
    ids=range(11),
)
def test_lineage_that_cannot_be_shown_is_told_as_such(content: bytes) -> None:
    """The version is served all the same."""
    told = read_lineage(content, b"\xff card" + b"x" * MAX_BYTES)
    assert told.keys() == {"lineage_problem", "model_card"}
    assert told["lineage_problem"].startswith("lineage.json is")
    assert told["model_card"].endswith("\n...")
    json.dumps(told, ensure_ascii=False).encode()
