"""What is kept on disk of registries' answers: over restarts, through damage, within bounds."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.registry import resolutions
from gateway.registry.resolutions import ReadyVersion, Resolution, ResolutionStore, rollback_window
from tests.registry.fakes import version

KEY = "model 'fraud' = s3://bucket/fraud@champion in s3://bucket"


def ready(label: str, at_s: float, revision: str = "r1") -> ReadyVersion:
    return ReadyVersion(label=label, revision=revision, digest=(label * 64)[:64], ready_s=at_s)


LINEAGE = {"run_id": "r", "tags": {"a": ["b", 1, None]}}
RESOLUTION = Resolution(
    versions=(version("1"), replace(version("1.4.2", "r2"), lineage=LINEAGE)),
    aliases={"champion": "1.4.2", "ä": "1"},
    texts={"config.pbtxt": "max_batch_size: 8\n", "labels.txt": "ja\nnein\n"},
    ok_s=1_700_000_000.25,
    ready=(ready("1", 5.0), ready("2", 6.0)),
)


@pytest.fixture
def store(tmp_path: Path) -> ResolutionStore:
    return ResolutionStore(tmp_path / "kept")


def file(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "kept").glob("*.json")
    return path


def test_it_comes_back_as_it_was(store: ResolutionStore, tmp_path: Path) -> None:
    """To another process too; the directory is for one user, and nothing else is left in it."""
    store.save(KEY, replace(RESOLUTION, ok_s=1.0))
    store.save(KEY, RESOLUTION)
    assert ResolutionStore(tmp_path / "kept").load([KEY, "other"]) == {KEY: RESOLUTION}
    assert list((tmp_path / "kept").iterdir()) == [file(tmp_path)]
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700


def test_without_a_directory_nothing_is_known(store: ResolutionStore) -> None:
    """The first start of all."""
    assert store.load([KEY]) == {}


def test_any_damage_is_as_good_as_nothing(
    store: ResolutionStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut short, flipped, of another format or of another reference: said in the log, and ignored."""
    store.save(KEY, RESOLUTION)
    whole = file(tmp_path).read_bytes()
    document = json.loads(whole)
    number = {**document["versions"][0], "number": 0}
    damaged = [
        b"",
        whole[:100],
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"[" * 100_000,
        json.dumps({**document, "format": 2}).encode(),
        json.dumps({**document, "key": "other"}).encode(),
        json.dumps({**document, "versions": [number]}).encode(),
        json.dumps({**document, "versions": [{}]}).encode(),
        json.dumps({**document, "ok_s": "yesterday"}).encode(),
        json.dumps({**document, "ok_s": float("nan")}).encode(),
        json.dumps({**document, "texts": {"config.pbtxt": 3}}).encode(),
        json.dumps({**document, "ready": [{"label": "1"}]}).encode(),
        whole + b" " * resolutions.MAX_FILE_BYTES,
    ]
    for content in damaged:
        caplog.clear()
        file(tmp_path).write_bytes(content)
        assert store.load([KEY]) == {}, content[:40]
        assert "is damaged or of another format: it is ignored" in caplog.text
    store.save(KEY, RESOLUTION)
    assert store.load([KEY]) == {KEY: RESOLUTION}


@given(st.integers(0, 2000), st.integers(0, 255))
def test_any_flipped_byte(tmp_path_factory: pytest.TempPathFactory, at: int, value: int) -> None:
    """Loading gives a resolution or none, and never fails."""
    directory = tmp_path_factory.mktemp("kept")
    store = ResolutionStore(directory)
    store.save(KEY, RESOLUTION)
    (path,) = directory.glob("*.json")
    content = bytearray(path.read_bytes())
    content[at % len(content)] = value
    path.write_bytes(bytes(content))
    assert store.load([KEY]).keys() <= {KEY}


def test_a_file_that_cannot_be_read_is_told(
    store: ResolutionStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are read all the same."""
    store.save(KEY, RESOLUTION)
    path = file(tmp_path)
    path.unlink()
    path.mkdir()
    store.save("other", RESOLUTION)
    assert store.load([KEY, "other"]) == {"other": RESOLUTION}
    assert "cannot be read: Is a directory" in caplog.text


def test_a_save_that_fails_leaves_what_was_there(store: ResolutionStore, tmp_path: Path) -> None:
    """Nor does it leave half a file."""
    store.save(KEY, RESOLUTION)
    with pytest.raises(ValueError, match="surrogates not allowed"):
        store.save(KEY, replace(RESOLUTION, texts={"config.pbtxt": "\udcff"}))
    assert store.load([KEY]) == {KEY: RESOLUTION}
    assert list((tmp_path / "kept").iterdir()) == [file(tmp_path)]


def test_a_huge_answer_is_kept_without_what_can_be_missed(
    store: ResolutionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the lineage goes, then all but the highest versions; the file stays within its bound."""
    monkeypatch.setattr(resolutions, "MAX_FILE_BYTES", 200_000)
    lineage = {"description": "x" * 2_000}
    many = tuple(replace(version(str(n)), lineage=lineage) for n in range(1, 200))
    store.save(KEY, replace(RESOLUTION, versions=many))
    kept = store.load([KEY])[KEY]
    assert [v.label for v in kept.versions] == [v.label for v in many]
    assert {len(v.lineage) for v in kept.versions} == {0}
    longer = tuple(replace(v, lineage={}, revision="r" * 2_000) for v in many)
    store.save(KEY, replace(RESOLUTION, versions=longer))
    kept = store.load([KEY])[KEY]
    assert kept.versions == longer[-16:]
    assert file(tmp_path).stat().st_size <= resolutions.MAX_FILE_BYTES
    endless = tuple(replace(v, revision="r" * 20_000) for v in longer)
    with pytest.raises(OSError, match="it has more than"):
        store.save(KEY, replace(RESOLUTION, versions=endless))
    assert store.load([KEY])[KEY].versions == longer[-16:]


def test_what_belongs_to_nobody_goes(
    store: ResolutionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """References not followed for long, beyond a number, and what a killed process left; nothing else."""
    names = [f"model {n}" for n in range(6)]
    for n, name in enumerate(names):
        store.save(name, RESOLUTION)
        path = max((tmp_path / "kept").glob("*.json"), key=lambda p: p.stat().st_mtime_ns)
        os.utime(path, (1e9 + n, 1e9 + n))
    for suffix, age_s in (("old.part", 7200), ("young.part", 60), ("README", 1e9)):
        (tmp_path / "kept" / suffix).write_bytes(b"")
        os.utime(tmp_path / "kept" / suffix, (1e9 - age_s, 1e9 - age_s))
    store.load([names[0]])
    assert set(store.load(names)) == set(names)
    left = {p.name for p in (tmp_path / "kept").iterdir() if p.suffix != ".json"}
    assert left == {"young.part", "README"}
    monkeypatch.setattr(resolutions, "MAX_FILES", 3)
    store.load([names[0]])
    assert set(store.load(names)) == {names[0], *names[3:]}
    monkeypatch.setattr(resolutions, "MAX_AGE_S", 0.5)
    store.load([names[0]])
    assert set(store.load(names)) == {names[0], names[5]}


@pytest.mark.parametrize(
    ("entries", "wanted", "keep", "left"),
    [
        ([], [], 2, ""),
        ([("1", 1), ("2", 2), ("3", 3), ("4", 4)], ["4"], 2, "234"),
        ([("1", 1), ("2", 2), ("3", 3), ("4", 4)], ["4"], 0, "4"),
        ([("1", 1), ("2", 2), ("3", 3)], [], 2, "23"),
        ([("1", 9), ("2", 2), ("3", 3)], ["3"], 1, "31"),
        ([("1", 1), ("2", 2), ("1", 3), ("3", 4)], ["3"], 1, "13"),
        ([("1", 1), ("2", 2), ("3", 3)], ["1", "2", "3"], 0, "123"),
    ],
)
def test_rollback_window(entries: list[tuple[str, float]], wanted: list[str], keep: int, left: str) -> None:
    """Everything wanted, and of the others those READY last, oldest first."""
    window = rollback_window([ready(*e) for e in entries], [(label, "r1") for label in wanted], keep)
    assert "".join(entry.label for entry in window) == left
