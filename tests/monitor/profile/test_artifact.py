"""The profile's file and the catalog: what is read is what was written, and nothing hostile gets in."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.monitor.profile.artifact import ProfileError, from_bytes, read, sealed, to_bytes, write
from gateway.monitor.profile.catalog import ProfileCatalog
from tests.monitor.detect.streams import MODEL, healthy_profile
from tests.properties import examples

if TYPE_CHECKING:
    from pathlib import Path

PROFILE = healthy_profile(3000, source="a test")
DATA = to_bytes(PROFILE)


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Every field, through a file."""
    write(PROFILE, tmp_path / "m" / "3" / "profile.json")
    again = read(tmp_path / "m" / "3" / "profile.json")
    assert to_bytes(again) == DATA
    assert again.blocks == PROFILE.blocks
    assert again.categories[0].values == PROFILE.categories[0].values
    assert (again.embeddings[0].total == PROFILE.embeddings[0].total).all()
    assert [p.name for p in (tmp_path / "m" / "3").iterdir()] == ["profile.json"]


def _paths(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [place] if place else []
    if isinstance(value, dict):
        found += [p for k, v in value.items() for p in _paths(v, (*place, k))]
    elif isinstance(value, list) and value:
        found += _paths(value[0], (*place, 0))
    return found


PATHS = _paths(json.loads(DATA))
JUNK: list[Any] = [
    None,
    True,
    -1,
    1e308,
    "x",
    "x" * 5000,
    [],
    [[]],
    {},
    [1, 2, 3],
    [None],
    {"a": 1},
    ["==="],
    2**70,
]


@settings(max_examples=examples(400), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(PATHS), st.sampled_from(JUNK), st.booleans())
def test_any_change_is_refused_with_a_reason(path: tuple[Any, ...], junk: Any, remove: bool) -> None:
    """Whatever field is replaced or removed: one kind of error that says why, or the very same profile."""
    document = json.loads(DATA)
    at = document
    for key in path[:-1]:
        at = at[key]
    if remove:
        del at[path[-1]]
    elif at[path[-1]] == junk and type(at[path[-1]]) is type(junk):
        return
    else:
        at[path[-1]] = junk
    with pytest.raises(ProfileError, match=r"\S"):
        from_bytes(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no profile"),
        (b'{"format": "else"}', "no profile"),
        (DATA.replace(b'"format_version": 1', b'"format_version": 9'), "is not known here"),
        (DATA.replace(b'"rows": 3000', b'"rows": 3001', 1), "digest"),
        (b" " * (64 << 20) + b"x", "at most 64 MiB"),
    ],
    ids=["empty", "nested", "list", "format", "version", "edited", "long"],
)
def test_what_is_no_profile_is_refused(data: bytes, message: str) -> None:
    """With a message that tells what to do."""
    with pytest.raises(ProfileError, match=message):
        from_bytes(data)


def test_numbers_that_are_not_finite_are_never_written() -> None:
    """A profile with NaN in it is a fault of the maker."""
    broken = replace(PROFILE, performance={"f1": float("nan")})
    with pytest.raises(ProfileError, match="finite"):
        to_bytes(broken)


def _put(path: Path, profile: Any) -> None:
    write(profile, path)
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


def test_the_catalog_prefers_the_version_and_sees_replaced_files(tmp_path: Path) -> None:
    """A version's own file first, then that of any version; a replaced one after `refresh`."""
    any_version = sealed(replace(PROFILE, version=0))
    catalog = ProfileCatalog([tmp_path])
    assert catalog.find(MODEL, 3) is None
    write(any_version, tmp_path / MODEL / "profile.json")
    assert catalog.find(MODEL, 3) is None
    before = catalog.generation
    assert catalog.refresh() == [(MODEL, 3)]
    assert catalog.generation > before
    assert _id(catalog) == any_version.id
    write(PROFILE, tmp_path / MODEL / "3" / "profile.json")
    catalog.refresh()
    assert _id(catalog) == PROFILE.id
    replaced = sealed(replace(PROFILE, source="again"))
    _put(tmp_path / MODEL / "3" / "profile.json", replaced)
    catalog.refresh()
    assert _id(catalog) == replaced.id
    assert catalog.refresh() == []


def test_a_broken_file_leaves_what_was_known_in_force(tmp_path: Path) -> None:
    """It is named as a fault, and the profile before it stays."""
    path = tmp_path / MODEL / "3" / "profile.json"
    write(PROFILE, path)
    catalog = ProfileCatalog([tmp_path])
    assert _id(catalog) == PROFILE.id
    path.write_bytes(b"{torn")
    catalog.refresh()
    assert _id(catalog) == PROFILE.id
    assert str(path) in catalog.faults
    path.unlink()
    catalog.refresh()
    assert catalog.find(MODEL, 3) is None


@pytest.mark.parametrize("model", ["../secret", "/etc", "a/b", "", ".", "..", "x" * 500, "\x00"])
def test_names_that_are_no_folder_find_nothing(tmp_path: Path, model: str) -> None:
    """A model's name from the log never leads out of the directories."""
    (tmp_path / "inside").mkdir()
    write(PROFILE, tmp_path / "secret" / "profile.json")
    catalog = ProfileCatalog([tmp_path / "inside"], tmp_path / "inside")
    assert catalog.find(model, 1) is None
    catalog.put(sealed(replace(PROFILE, model=model, version=1)))
    assert catalog.find(model, 1) is not None
    assert list((tmp_path / "inside").iterdir()) == []


def _id(catalog: ProfileCatalog) -> str:
    found = catalog.find(MODEL, 3)
    assert found is not None
    assert np.isfinite(found.numeric[0].edges).all()
    return found.id
