"""What a registry may list for a version."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.registry import RegistryError, RegistryFile
from gateway.registry.cache.download import gaps
from gateway.registry.cache.listing import checked_listing
from gateway.registry.cache.options import CacheOptions
from gateway.registry.cache.sizes import in_words

OPTIONS = CacheOptions(max_files=5, max_artifact_bytes=1000)


def listed(*paths: str) -> list[RegistryFile]:
    return [RegistryFile(path=path, size=1) for path in paths]


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([], "no files"),
        (["a", "b", "c", "d", "e", "f"], "more than 5 files"),
        ([""], "empty"),
        (["/etc/passwd"], "relative"),
        (["../a"], "leaves the version"),
        (["a/../../b"], "leaves the version"),
        (["a//b"], "shortest form"),
        (["./a"], "shortest form"),
        (["a/"], "shortest form"),
        (["a\\b"], "relative"),
        (["a\0b"], "cannot be shown"),
        (["a\nb"], "cannot be shown"),
        (["a\u202eb"], "cannot be shown"),
        (["\udcff"], "cannot be shown"),
        (["x" * 256], "255 bytes"),
        (["a", "a"], "one name"),
        (["Model.onnx", "model.onnx"], "one name"),
        (["\u00e9", "e\u0301"], "one name"),
        (["Straße", "STRASSE"], "one name"),
        (["a", "a/b"], "file and as a directory"),
        (["A/b", "a"], "file and as a directory"),
    ],
)
def test_paths_that_are_refused(paths: list[str], words: str) -> None:
    """A path that could lie elsewhere, or stand for two files, refuses the version for good."""
    with pytest.raises(RegistryError, match=words) as refused:
        checked_listing("version '1' of 'm'", listed(*paths), OPTIONS)
    assert (refused.value.step, refused.value.may_pass) == ("fetch", False)


def test_sizes_and_digests_that_are_refused() -> None:
    """An impossible size, a sum above the limit and a digest that is none refuse the version."""
    for file, words in (
        (RegistryFile(path="a", size=-1), "impossible size"),
        (RegistryFile(path="a", size=1001), "the limit is 1.0 kB"),
        (RegistryFile(path="a", size=1, sha256="md5:0"), "SHA-256"),
    ):
        with pytest.raises(RegistryError, match=words):
            checked_listing("version '1' of 'm'", [file], OPTIONS)


def test_good_listings_come_in_the_order_of_the_digest() -> None:
    """Files are ordered by the parts of their paths; upper-case digests pass."""
    files = [*listed("a.b", "a/b", "a-b"), RegistryFile(path="Z", size=None, sha256="A" * 64)]
    assert [file.path for file in checked_listing("v", files, OPTIONS)] == ["Z", "a/b", "a-b", "a.b"]


@given(
    st.integers(0, 60),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda pair: (pair[0], sum(pair)))),
    st.integers(1, 20),
)
def test_gaps_are_what_is_missing(size: int, had: list[tuple[int, int]], part_bytes: int) -> None:
    """Parts to fetch and parts there cover the file; those to fetch overlap nothing and are not too long."""
    missing = list(gaps(size, had, part_bytes))
    assert all(0 < end - start <= part_bytes for start, end in missing)
    covered = {at for start, end in had for at in range(start, end)} & set(range(size))
    wanted = [at for start, end in missing for at in range(start, end)]
    assert len(wanted) == len(set(wanted))
    assert set(wanted) == set(range(size)) - covered


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_500, "1.5 kB"),
        (231_000_000, "231 MB"),
        (999_999, "1.0 MB"),
        (10**15, "1000.0 TB"),
    ],
)
def test_sizes_in_words(size: int, words: str) -> None:
    """Sizes are told as people write them."""
    assert in_words(size) == words
