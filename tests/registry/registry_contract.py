"""What every ModelRegistry must do, whatever store is behind it: a suite to subclass with a fixture."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pytest

from gateway.core.registry import (
    ModelRegistry,
    NotInRegistry,
    RangeUnsupported,
    RegistryError,
    RegistryFile,
    RegistryVersion,
)

MODEL = b"\x08\x0a" + bytes(range(256)) * 2048
"""Content of a model file, half a MiB; no registry looks into it."""
FILES = {"model.onnx": MODEL, "weights/part one.bin": b"weights" * 1000, "empty.txt": b""}
ODD_NAMES = ["", ".", "..", "../other", "a/../b", "/absolute", "a//b", "a\0b", "a\nb", "\udcff", "x" * 5000]


@dataclass
class RegistryUnderTest:
    """A registry and the means of changing what it holds, through the store's own tools.

    Attributes:
        registry: the registry.
        other: another one on the same store, as a second gateway has it.
        unreachable: one of the same kind, with the same secrets, whose store is not there.
        publish: stores the files as the model's next version and returns its label. A store may add files
            of its own.
        set_alias: sets or moves (model, alias, label).
        delete_alias: removes (model, alias).
        delete_version: removes (model, label) with its files.
        secrets: texts that no message and no identity may contain.
        ranges: whether files can be read from the middle.
    """

    registry: ModelRegistry
    other: ModelRegistry
    unreachable: ModelRegistry
    publish: Callable[[str, Mapping[str, bytes]], Awaitable[str]]
    set_alias: Callable[[str, str, str], Awaitable[None]]
    delete_alias: Callable[[str, str], Awaitable[None]]
    delete_version: Callable[[str, str], Awaitable[None]]
    secrets: tuple[str, ...] = ()
    ranges: bool = True
    model: str = field(default="fraud")

    async def version(self, label: str) -> RegistryVersion:
        """Return the version with this label as the registry gives it now."""
        known = await self.registry.model(self.model)
        return next(version for version in known.versions if version.label == label)

    async def file(self, version: RegistryVersion, path: str) -> RegistryFile:
        """Return one file of a version as the registry lists it now."""
        return next(file for file in await self.registry.files(version) if file.path == path)

    async def content(
        self, version: RegistryVersion, file: RegistryFile, start: int = 0, end: int | None = None
    ) -> bytes:
        """Return the bytes [start, end) of a file."""
        return b"".join([piece async for piece in self.registry.read(version, file, start, end)])


class ModelRegistryContract:
    """The contract; a subclass defines a fixture `subject`, whose store holds no model `subject.model`."""

    async def test_a_model_that_does_not_exist_is_said_to_be_none(self, subject: RegistryUnderTest) -> None:
        """It is told from a registry that is down, and the message names the model."""
        with pytest.raises(NotInRegistry, match=subject.model) as caught:
            await subject.registry.model(subject.model)
        assert caught.value.step == "resolve"

    @pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: ascii(name[:12]))
    async def test_a_name_no_model_can_have_is_refused(self, subject: RegistryUnderTest, name: str) -> None:
        """Nothing outside the model can be reached through its name."""
        await subject.publish("other", FILES)
        with pytest.raises(RegistryError) as caught:
            await subject.registry.model(name)
        assert caught.value.step == "resolve"
        assert str(caught.value).isprintable()

    async def test_versions_come_in_the_order_they_were_published(self, subject: RegistryUnderTest) -> None:
        """Numbers are positive, ascend, and are those of the labels on every gateway."""
        labels = [await subject.publish(subject.model, FILES) for _ in range(3)]
        known = await subject.registry.model(subject.model)
        assert known.name == subject.model
        assert [version.label for version in known.versions] == labels
        numbers = [version.number for version in known.versions]
        assert numbers == sorted(set(numbers))
        assert numbers[0] > 0
        assert {version.model for version in known.versions} == {subject.model}
        assert not known.unusable

    async def test_two_gateways_see_the_same(self, subject: RegistryUnderTest) -> None:
        """Identity, numbers, revisions and locations are equal, so that a cache can be shared."""
        await subject.publish(subject.model, FILES)
        await subject.set_alias(subject.model, "champion", await subject.publish(subject.model, FILES))
        ours, theirs = [await r.model(subject.model) for r in (subject.registry, subject.other)]
        assert subject.registry.identity == subject.other.identity
        assert ours == theirs

    async def test_a_revision_stays_while_the_files_do(self, subject: RegistryUnderTest) -> None:
        """Neither looking again, nor a later version, nor an alias makes a version another one."""
        label = await subject.publish(subject.model, FILES)
        before = await subject.version(label)
        await subject.set_alias(subject.model, "champion", await subject.publish(subject.model, FILES))
        await subject.set_alias(subject.model, "previous", label)
        assert (await subject.version(label)).revision == before.revision

    async def test_an_alias_is_set_moved_and_deleted(self, subject: RegistryUnderTest) -> None:
        """Each is seen by the next look."""
        first, second = [await subject.publish(subject.model, FILES) for _ in range(2)]
        assert (await subject.registry.model(subject.model)).aliases == {}
        await subject.set_alias(subject.model, "champion", first)
        await subject.set_alias(subject.model, "challenger", second)
        seen = (await subject.registry.model(subject.model)).aliases
        assert seen == {"champion": first, "challenger": second}
        await subject.set_alias(subject.model, "champion", second)
        seen = (await subject.registry.model(subject.model)).aliases
        assert seen == {"champion": second, "challenger": second}
        await subject.delete_alias(subject.model, "champion")
        assert (await subject.registry.model(subject.model)).aliases == {"challenger": second}

    async def test_a_deleted_version_is_gone(self, subject: RegistryUnderTest) -> None:
        """It is neither offered nor readable; the others stay as they were."""
        first, second = [await subject.publish(subject.model, FILES) for _ in range(2)]
        gone = await subject.version(first)
        file = await subject.file(gone, "model.onnx")
        await subject.delete_version(subject.model, first)
        known = await subject.registry.model(subject.model)
        assert [version.label for version in known.versions] == [second]
        with pytest.raises(RegistryError) as listing:
            await subject.registry.files(gone)
        assert listing.value.step == "fetch"
        with pytest.raises(RegistryError) as reading:
            await subject.content(gone, file)
        assert reading.value.step == "fetch"

    async def test_files_are_all_listed(self, subject: RegistryUnderTest) -> None:
        """Paths are relative and plain, and a size that is given is right."""
        version = await subject.version(await subject.publish(subject.model, FILES))
        listed = {file.path: file for file in await subject.registry.files(version)}
        assert FILES.keys() <= listed.keys()
        for path in listed:
            assert not PurePosixPath(path).is_absolute()
            assert ".." not in PurePosixPath(path).parts
        for path, content in FILES.items():
            assert listed[path].size in {None, len(content)}

    @pytest.mark.parametrize("path", list(FILES))
    async def test_a_file_is_read_as_it_was_published(self, subject: RegistryUnderTest, path: str) -> None:
        """Large, nested and empty ones alike."""
        version = await subject.version(await subject.publish(subject.model, FILES))
        assert await subject.content(version, await subject.file(version, path)) == FILES[path]

    @pytest.mark.parametrize(
        ("start", "end"), [(0, 1), (0, 1000), (1, 2), (70_000, 140_001), (100, None), (len(MODEL) - 1, None)]
    )
    async def test_a_range_is_read(self, subject: RegistryUnderTest, start: int, end: int | None) -> None:
        """Exactly its bytes, or the refusal that makes the caller read from the beginning."""
        version = await subject.version(await subject.publish(subject.model, FILES))
        file = await subject.file(version, "model.onnx")
        if start and not subject.ranges:
            with pytest.raises(RangeUnsupported):
                await subject.content(version, file, start, end)
        else:
            assert await subject.content(version, file, start, end) == MODEL[start:end]

    async def test_a_file_that_is_not_there_cannot_be_read(self, subject: RegistryUnderTest) -> None:
        """The fault is of the step `fetch` and names the file."""
        version = await subject.version(await subject.publish(subject.model, FILES))
        with pytest.raises(RegistryError, match=r"lost\.bin") as caught:
            await subject.content(version, RegistryFile(path="lost.bin", size=10))
        assert caught.value.step == "fetch"

    async def test_a_read_given_up_midway_harms_nothing(self, subject: RegistryUnderTest) -> None:
        """The same file can be read again, and others meanwhile."""
        version = await subject.version(await subject.publish(subject.model, FILES))
        file = await subject.file(version, "model.onnx")
        async with aclosing(subject.registry.read(version, file, 0, None)) as pieces:  # type: ignore[type-var]  # every registry's is a generator
            async for piece in pieces:
                assert MODEL.startswith(piece)
                break
        assert await subject.content(version, file) == MODEL

    async def test_looks_and_reads_go_on_side_by_side(self, subject: RegistryUnderTest) -> None:
        """None disturbs another."""
        version = await subject.version(await subject.publish(subject.model, FILES))
        file = await subject.file(version, "model.onnx")
        expected = await subject.registry.model(subject.model)
        reads = asyncio.gather(*(subject.content(version, file) for _ in range(8)))
        looks = asyncio.gather(*(subject.registry.model(subject.model) for _ in range(8)))
        assert set(await reads) == {MODEL}
        assert all(look == expected for look in await looks)

    async def test_a_look_given_up_harms_nothing(self, subject: RegistryUnderTest) -> None:
        """Whoever stops waiting at once leaves a registry that works."""
        label = await subject.publish(subject.model, FILES)
        look = asyncio.ensure_future(subject.registry.model(subject.model))
        await asyncio.sleep(0)
        look.cancel()
        with pytest.raises(asyncio.CancelledError):
            await look
        assert (await subject.version(label)).label == label

    async def test_lineage_can_be_sent(self, subject: RegistryUnderTest) -> None:
        """It has JSON types alone."""
        version = await subject.version(await subject.publish(subject.model, FILES))
        assert json.loads(json.dumps(dict(version.lineage), allow_nan=False)) == dict(version.lineage)

    async def test_a_store_that_is_not_there_may_come_back(self, subject: RegistryUnderTest) -> None:
        """Every method says so as a fault that may pass, and says no secrets."""
        version = await subject.version(await subject.publish(subject.model, FILES))
        file = await subject.file(version, "model.onnx")

        async def read() -> None:
            async for _ in subject.unreachable.read(version, file, 0, None):
                raise AssertionError("it gave bytes")

        asked: dict[str, list[Awaitable[object]]] = {
            "resolve": [subject.unreachable.model(subject.model)],
            "fetch": [subject.unreachable.files(version), read()],
        }
        for step, calls in asked.items():
            for call in calls:
                with pytest.raises(RegistryError) as caught:
                    await call
                assert caught.value.step == step
                assert caught.value.may_pass
                assert not isinstance(caught.value, NotInRegistry)
                assert not any(secret in str(caught.value) for secret in subject.secrets)

    async def test_identity_holds_no_secrets(self, subject: RegistryUnderTest) -> None:
        """It is shown and stored; two stores are told apart by it."""
        assert not any(secret in subject.registry.identity for secret in subject.secrets)
        assert subject.registry.identity != subject.unreachable.identity
        assert not any(secret in repr(subject.registry) for secret in subject.secrets)
