"""What the source makes of one model: its settings, what clients ask for, and what is kept for it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.errors import ModelLoadError, NotFound
from gateway.core.options import ModelSpec, VersionPolicy
from gateway.core.types import VersionState, VersionStatus
from gateway.registry.polling import PollOptions
from gateway.registry.provider import ArtifactRules, CachedProvider
from gateway.registry.verification.policy import SignatureReport
from tests.registry.fakes import POLL, Rig, published, sourced

INTERVAL_S = PollOptions().interval_s
CAP_S = PollOptions().max_backoff_s


async def test_config_beside_the_versions_shapes_the_spec(tmp_path: Path) -> None:
    """config.pbtxt and its labels, then the operator's settings; read once, and kept over a restart."""
    rig = published(Rig(tmp_path, sourced(selector="", adjust=lambda s: replace(s, max_batch_size=4))))
    rig.registry.put_file(
        "config.pbtxt",
        b'max_batch_size: 8 version_policy { all {} } default_model_filename: "net.onnx" '
        b'output { name: "y" label_filename: "labels.txt" }',
    )
    rig.registry.put_file("labels.txt", b"no\nyes\n")
    first = await rig.start()
    assert [v.id.number for v in first] == [1, 2]
    assert first[0].spec.labels == {"y": ("no", "yes")}
    assert first[0].spec.max_batch_size == 4
    assert first[0].spec.versions == VersionPolicy(all=True)
    assert isinstance(first[0].provider, CachedProvider)
    assert first[0].provider._wanted.model_filename == "net.onnx"
    await rig.pass_s(5 * INTERVAL_S)
    assert rig.registry.content_reads == 2
    rig.registry.down = True
    assert await rig.start() == first or [v.id for v in rig.sets[0]] == [v.id for v in first]
    await rig.stop()


@pytest.mark.parametrize(
    ("path", "content", "says"),
    [
        ("config.pbtxt", b"max_batch_size: many", "resolve: config.pbtxt: 1:17"),
        ("config.pbtxt", b"\xff\xfe", "resolve: file 'config.pbtxt' is not UTF-8 text"),
        ("labels.txt", None, "resolve: label file 'labels.txt' is not in the registry, beside the versions"),
    ],
)
async def test_a_config_that_is_wrong_keeps_what_is_served(
    tmp_path: Path, path: str, content: bytes | None, says: str
) -> None:
    """Versions and settings stay as they were until it is mended, and the next look is no later for it."""
    rig = published(Rig(tmp_path))
    rig.registry.put_file("config.pbtxt", b'output { name: "y" label_filename: "labels.txt" }')
    rig.registry.put_file("labels.txt", b"a")
    first = await rig.start()
    before = rig.registry.now()
    rig.registry.put_file(path, content)
    rig.registry.alias("champion", "2")
    await rig.pass_s(10 * INTERVAL_S)
    assert [v.id for v in rig.sets[-1]] == [v.id for v in first]
    assert rig.status().message.startswith(says)
    assert before.aliases["champion"] == "1"
    rig.registry.put_file("config.pbtxt", b"")
    await rig.pass_s(INTERVAL_S)
    assert rig.labels == ["2"]
    assert rig.source.problems() == {}
    await rig.stop()


async def test_settings_that_contradict_the_config_are_told(tmp_path: Path) -> None:
    """As for a local model; the model is named with the reason."""

    def refuse(spec: ModelSpec) -> ModelSpec:
        raise ModelLoadError("the configuration asks for batches of 64 rows")

    rig = published(Rig(tmp_path, sourced(adjust=refuse)))
    assert await rig.start() == []
    assert rig.source.problems() == {"fraud": "resolve: the configuration asks for batches of 64 rows"}
    await rig.stop()


async def test_a_client_asks_for_a_model(tmp_path: Path) -> None:
    """The registry is asked now; what is not ours is not found, what cannot be resolved says why."""
    rig = published(Rig(tmp_path, sourced(), sourced("empty")))
    with pytest.raises(NotFound):
        await rig.source.versions("other")
    (wanted,) = await rig.source.versions("fraud")
    assert wanted.id.number == 1
    with pytest.raises(ModelLoadError, match="failed to load 'empty', resolve: there is no model 'empty'"):
        await rig.source.versions("empty")
    rig.registry.down = True
    assert [v.id for v in await rig.source.versions("fraud")] == [wanted.id]


async def test_a_client_gives_a_config(tmp_path: Path) -> None:
    """It stands in for config.pbtxt, its version policy included, for this load alone."""
    rig = published(Rig(tmp_path, sourced(selector="")))
    rig.registry.put_file("config.pbtxt", b"max_batch_size: 8")
    (plain,) = await rig.source.versions("fraud")
    both = await rig.source.versions("fraud", '{"max_batch_size": 2, "version_policy": {"all": {}}}')
    assert [v.id.number for v in both] == [1, 2]
    assert {v.spec.max_batch_size for v in both} == {2}
    assert (await rig.source.versions("fraud"))[0].id == plain.id
    with pytest.raises(ModelLoadError, match="failed to load 'fraud', resolve: config: "):
        await rig.source.versions("fraud", "{")


async def test_two_public_names_of_one_model(tmp_path: Path) -> None:
    """They are followed apart, each by its own selector; a hint reaches both."""
    other = replace(sourced(selector="@2"), name="pinned")
    rig = published(Rig(tmp_path, sourced(), other))
    await rig.start()
    assert [v.id[:2] for v in rig.sets[0]] == [("fraud", 1), ("pinned", 2)]
    assert rig.source.hint("fraud") == 2
    await rig.stop()


async def test_what_is_wanted_or_was_ready_is_kept(tmp_path: Path) -> None:
    """The last versions that were READY stay in the cache for a rollback, over a restart too."""
    rig = Rig(tmp_path, sourced(digest="e" * 64), keep_previous=2)
    digests = {label: label * 64 for label in "12345"}
    for label in "12345":
        rig.registry.publish(label)
        rig.registry.alias("champion", label)
        if label == "1":
            await rig.start()
        else:
            await rig.pass_s(INTERVAL_S)
        (wanted,) = rig.sets[-1]
        for state in (VersionState.LOADING, VersionState.READY, VersionState.FAILED):
            digest = digests[label] if state is VersionState.READY else "f" * 64
            rig.source.on_transition(VersionStatus(id=wanted.id, state=state, content_digest=digest))
    await rig.pass_s(INTERVAL_S)
    expected = {"e" * 64, *(digests[label] for label in "345")}
    assert rig.source.keep_digests() == expected
    rig.registry.down = True
    await rig.start()
    assert rig.source.keep_digests() == expected
    await rig.stop()


async def test_files_that_were_obtained_are_kept_before_they_are_ready(tmp_path: Path) -> None:
    """A golden test that fails time and again does not fetch them time and again."""
    rig = published(Rig(tmp_path))
    (wanted,) = await rig.start()
    assert wanted.provider is not None
    async with wanted.provider.obtain(lambda _progress: None) as artifact:
        assert artifact.model_file.read_bytes() == b"model"
    assert rig.source.keep_digests() == {artifact.digest}
    assert rig.source.signature(wanted.id) is None
    await rig.stop()


async def test_a_version_that_serves_on_keeps_what_is_known_of_its_files(tmp_path: Path) -> None:
    """While another is wanted, and when it is wanted again, its signature and its digest are still known."""
    report = SignatureReport(signed=True, by="ops", detail="")

    class Verifier:
        def check(self, _directory: Path, _files: Mapping[str, str]) -> SignatureReport:
            return report

    rig = published(Rig(tmp_path, rules=ArtifactRules(signatures=Verifier())))
    (first,) = await rig.start()
    assert first.provider is not None
    async with first.provider.obtain(lambda _progress: None) as artifact:
        pass
    rig.registry.alias("champion", "2")
    await rig.pass_s(INTERVAL_S)
    assert rig.labels == ["2"]
    assert rig.source.signature(first.id) is report
    rig.registry.alias("champion", "1")
    await rig.pass_s(INTERVAL_S)
    (again,) = rig.sets[-1]
    assert (again.id, again.provider) == (first.id, first.provider)
    assert rig.source.signature(first.id) is report
    assert rig.source.keep_digests() == {artifact.digest}
    await rig.stop()


@pytest.mark.parametrize("replaced", [True, False])
async def test_a_config_that_is_gone_is_looked_for_once_more(tmp_path: Path, replaced: bool) -> None:
    """One deleted and written anew reloads nothing by the defaults; one that stays away does, soon."""
    rig = published(Rig(tmp_path))
    rig.registry.put_file("config.pbtxt", b"max_batch_size: 8")
    await rig.start()
    rig.registry.put_file("config.pbtxt", None)
    rig.registry.alias("champion", "2")
    polls = len(rig.polls)
    while len(rig.polls) == polls:
        await rig.pass_s(0.1)
    assert [(v.id.number, v.spec.max_batch_size) for v in rig.sets[-1]] == [(2, 8)]
    rig.registry.put_file("config.pbtxt", b"max_batch_size: 4" if replaced else None)
    await rig.pass_s(1.1 * POLL.hint_spacing_s)
    assert [v.spec.max_batch_size for v in rig.sets[-1]] == [4 if replaced else None]
    assert {v.spec.max_batch_size for wanted in rig.sets for v in wanted} == {8, 4 if replaced else None}
    await rig.stop()


async def test_a_disk_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The versions are followed; the log says what is not kept."""
    rig = published(Rig(tmp_path))
    rig.store.write_text("a file where the directory should be")
    assert [v.id.number for v in await rig.start()] == [1]
    assert "cannot be kept: File exists" in caplog.text
    rig.registry.alias("champion", "2")
    await rig.pass_s(INTERVAL_S)
    assert rig.labels == ["2"]
    await rig.stop()


async def test_a_description_is_made_anew_only_when_its_files_change(tmp_path: Path) -> None:
    """Also by a file that was not there before, or is there no more."""
    made: list[int | None] = []

    def adjust(spec: ModelSpec) -> ModelSpec:
        made.append(spec.max_batch_size)
        return spec

    rig = published(Rig(tmp_path, sourced(adjust=adjust)))
    await rig.start()
    await rig.pass_s(5 * INTERVAL_S)
    assert made == [None]
    for content, size in ((b"max_batch_size: 8", 8), (b"max_batch_size: 4", 4), (None, None)):
        rig.registry.put_file("config.pbtxt", content)
        await rig.pass_s(5 * INTERVAL_S)
        assert rig.sets[-1][0].spec.max_batch_size == size
    assert made == [None, 8, 4, None]
    await rig.stop()
