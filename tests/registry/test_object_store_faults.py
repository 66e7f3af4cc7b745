"""A registry on a store that is down, slow, overloaded, or answers wrongly."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import pytest
from obstore.exceptions import GenericError

from gateway.core.registry import (
    NotInRegistry,
    RangeUnsupported,
    RegistryError,
    RegistryFile,
    RegistryVersion,
)
from gateway.registry.object_faults import store_fault
from gateway.registry.object_store import ObjectStoreRegistry
from gateway.registry.stores import ObjectStoreOptions, ReadLimits
from tests.servers.fake_bucket import BUCKET, FakeBucket, listing
from tests.servers.scripted_http import Asked, Reply, ScriptedServer, scripted_http

MODEL = bytes(range(256)) * 2000
SECRET = "never-to-be-shown"
PATIENT = ReadLimits(retries=0)
SHORT = ReadLimits(retries=0, request_timeout_s=0.3, read_timeout_s=0.3)


@dataclass(slots=True)
class Store:
    """A store that answers rightly until a test says otherwise."""

    server: ScriptedServer
    bucket: FakeBucket

    def registry(self, limits: ReadLimits = PATIENT, **changes: object) -> ObjectStoreRegistry:
        options = ObjectStoreOptions(
            url=f"s3://{BUCKET}/models",
            endpoint=self.server.endpoint,
            credentials={"access_key_id": "key", "secret_access_key": SECRET},
            allow_http=True,
            limits=limits,
        )
        return ObjectStoreRegistry("store", replace(options, **changes))  # type: ignore[arg-type]  # a test's own

    async def version(self) -> RegistryVersion:
        return (await self.registry().model("fraud")).versions[0]

    def spoil(self, change: Callable[[Reply], Reply], when: Callable[[Asked], bool] = lambda _: True) -> None:
        """Change the answers to the requests that `when` picks."""

        def answer(asked: Asked) -> Reply:
            reply = self.bucket.answer(asked)
            return change(reply) if when(asked) else reply

        self.server.answer = answer


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    bucket = FakeBucket({"models/fraud/1/model.onnx": MODEL, "models/fraud/aliases/champion": b"1"})
    async with scripted_http(bucket.answer) as server:
        yield Store(server, bucket)


async def content(
    registry: ObjectStoreRegistry, version: RegistryVersion, start: int = 0, end: int | None = None
) -> bytes:
    file = RegistryFile(path="model.onnx", size=len(MODEL))
    return b"".join([piece async for piece in registry.read(version, file, start, end)])


async def fault(registry: ObjectStoreRegistry) -> str:
    """Return why a look at the model fails; it may pass, and no secret is told."""
    with pytest.raises(RegistryError) as caught:
        await registry.model("fraud")
    assert not isinstance(caught.value, NotInRegistry)
    assert caught.value.step == "resolve"
    assert caught.value.may_pass
    assert SECRET not in str(caught.value)
    assert str(caught.value).isprintable()
    return str(caught.value)


async def test_an_unchanged_model_costs_one_request(store: Store) -> None:
    """Aliases are read when they change, never again before."""
    registry = store.registry()
    await registry.model("fraud")
    first = len(store.server.asked)
    assert first == 2
    before = await registry.model("fraud")
    assert len(store.server.asked) - first == 1
    store.bucket.objects["models/fraud/aliases/champion"] = b"2"
    after = await registry.model("fraud")
    assert len(store.server.asked) - first == 3
    assert (before.aliases, after.aliases) == ({"champion": "1"}, {"champion": "2"})


async def test_many_versions_have_their_lineage_read_over_a_few_looks(store: Store) -> None:
    """No look asks for more than a bounded number of files; those people ask about come first."""
    for number in range(1, 41):
        store.bucket.objects[f"models/fraud/{number}/model.onnx"] = b"m"
        store.bucket.objects[f"models/fraud/{number}/lineage.json"] = b'{"run_id": "r"}'
    registry = store.registry()
    told: list[set[str]] = []
    for _ in range(4):
        model = await registry.model("fraud")
        told.append({version.label for version in model.versions if "run_id" in version.lineage})
    assert told[0] == {"1", *(str(number) for number in range(26, 41))}
    assert [len(labels) for labels in told] == [16, 32, 40, 40]
    asked = len(store.server.asked)
    await registry.model("fraud")
    assert len(store.server.asked) - asked == 1


async def test_too_many_aliases_are_refused(store: Store) -> None:
    """Their number is told, and none is read."""
    store.bucket.objects |= {f"models/fraud/aliases/a{n}": b"1" for n in range(300)}
    assert "301 aliases" in await fault(store.registry())
    assert len(store.server.asked) == 1


async def test_pages_are_followed(store: Store) -> None:
    """A listing in many answers is one listing."""
    store.bucket.page = 3
    store.bucket.objects |= {f"models/fraud/{n}/model.onnx": b"m" for n in range(2, 12)}
    assert len((await store.registry().model("fraud")).versions) == 11
    assert len(store.server.asked) > 3


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (503, b"<Error><Code>SlowDown</Code></Error>", "overloaded or limits requests (503 SlowDown)"),
        (429, b"", "overloaded or limits requests (429)"),
        (500, b"<Error><Code>InternalError</Code></Error>", "a fault of its own (500 InternalError)"),
        (502, b"<html>bad gateway never-to-be-shown</html>", "a fault of its own (502)"),
        (403, b"<Error><Code>AccessDenied</Code></Error>", "denies access (403 AccessDenied)"),
        (400, b"<Error><Code>Odd never-to-be-shown</Code></Error>", "answers unexpectedly (400)"),
    ],
)
async def test_refusals_are_told_with_their_codes(
    store: Store, status: int, body: bytes, message: str
) -> None:
    """Status and the store's short code, nothing else of its answer."""
    store.server.answer = lambda _: Reply(status=status, body=body)
    assert message in await fault(store.registry())


async def test_retries_are_bounded(store: Store) -> None:
    """A store that fails is asked so often and no more; one that recovers meanwhile was never down."""
    store.server.answer = lambda _: Reply(status=503)
    await fault(store.registry(ReadLimits(retries=2)))
    assert len(store.server.asked) == 3
    asked: list[Asked] = []

    def answer(request: Asked) -> Reply:
        asked.append(request)
        return Reply(status=500) if len(asked) == 1 else store.bucket.answer(request)

    store.server.answer = answer
    assert (await store.registry(ReadLimits(retries=2)).model("fraud")).versions


async def test_a_listing_that_stalls_ends(store: Store) -> None:
    """Within its time; the message says how long that was."""
    store.spoil(lambda reply: replace(reply, send=20, stall=True))
    assert "gave nothing for 0.3 s" in await fault(store.registry(SHORT))


async def test_an_alias_that_cannot_be_read_fails_the_look(store: Store) -> None:
    """Else it would seem to be deleted; a lineage that cannot be read is only left out."""
    store.bucket.objects["models/fraud/1/lineage.json"] = b'{"run_id": "r"}'
    store.spoil(lambda _: Reply(status=500), lambda asked: "lineage" in asked.target)
    assert "run_id" not in (await store.version()).lineage
    store.spoil(
        lambda _: Reply(status=500), lambda asked: "aliases" in asked.target and "?" not in asked.target
    )
    assert "champion" in await fault(store.registry())
    store.spoil(
        lambda _: Reply(status=404), lambda asked: "aliases" in asked.target and "?" not in asked.target
    )
    assert (await store.registry().model("fraud")).aliases == {}


@pytest.mark.parametrize("key", ["models/fraud/../x", "models/fraud//x", "models/fraud/1/a\tb"])
async def test_a_name_no_file_can_have_is_told(store: Store, key: str) -> None:
    """The store's client refuses the whole listing: the message says what to delete."""
    store.bucket.objects[key] = b""
    assert "whose name cannot be used: '" in await fault(store.registry())


async def test_a_listing_of_what_was_not_asked_for_is_refused(store: Store) -> None:
    """A store that ignores the prefix is not believed."""
    store.server.answer = lambda _: Reply(body=listing([("models/other/1/model.onnx", b"m")]))
    assert "lists what was not asked for" in await fault(store.registry())


async def test_an_answer_that_is_no_listing_is_refused(store: Store) -> None:
    """Whatever answers there is no object store."""
    store.spoil(lambda reply: replace(reply, body=reply.body[:-30]))
    assert "answers a listing with something else" in await fault(store.registry())


async def test_where_nothing_answers_is_told(store: Store) -> None:
    """Each way of not being there in words of its own."""
    down = "http://127.0.0.1:9"
    assert "refuses connections" in await fault(store.registry(endpoint=down))
    assert "host name" in await fault(store.registry(endpoint="http://no-such-host.invalid"))
    tls = store.server.endpoint.replace("http:", "https:")
    assert "gave nothing" in await fault(store.registry(SHORT, endpoint=tls))
    with pytest.raises(RegistryError, match="plain http") as caught:
        await store.registry(allow_http=False).model("fraud")
    assert not caught.value.may_pass


async def test_a_file_is_read_in_ranges(store: Store) -> None:
    """Whole, from the middle, and to an end beyond its own."""
    registry, version = store.registry(), await store.version()
    assert await content(registry, version) == MODEL
    assert await content(registry, version, 1000, 300_000) == MODEL[1000:300_000]
    assert await content(registry, version, 500_000, 10**9) == MODEL[500_000:]
    assert await content(registry, version, 512_000) == b""


async def test_a_store_without_ranges_is_read_from_the_beginning(store: Store) -> None:
    """A part at the beginning is cut off the whole; from the middle it is refused."""
    store.bucket.ranges = False
    registry, version = store.registry(), await store.version()
    assert await content(registry, version) == MODEL
    assert await content(registry, version, 0, 300_000) == MODEL[:300_000]
    with pytest.raises(RangeUnsupported):
        await content(registry, version, 1, 2)


def is_object(asked: Asked) -> bool:
    return "?" not in asked.target


async def test_a_download_that_is_cut_off_goes_on_where_it_was(store: Store) -> None:
    """Once by itself where the store has ranges; the bytes are right."""
    registry, version = store.registry(ReadLimits(retries=1)), await store.version()
    store.spoil(lambda reply: replace(reply, send=100_000), lambda asked: "range" not in asked.headers)
    assert await content(registry, version) == MODEL


async def test_a_download_that_stays_cut_off_fails(store: Store) -> None:
    """Never with fewer bytes than the file has."""
    registry, version = store.registry(), await store.version()
    store.spoil(lambda reply: replace(reply, send=100_000), is_object)
    with pytest.raises(RegistryError, match=r"model\.onnx") as caught:
        await content(registry, version)
    assert (caught.value.step, caught.value.may_pass) == ("fetch", True)


async def test_an_answer_that_is_shorter_than_it_says_is_noticed(store: Store) -> None:
    """A range of fewer bytes than asked for, though complete as HTTP goes."""
    registry, version = store.registry(), await store.version()
    store.spoil(lambda reply: replace(reply, body=reply.body[:500]), is_object)
    with pytest.raises(RegistryError, match="500 bytes early"):
        await content(registry, version, 1000, 2000)


async def test_a_download_that_stalls_ends(store: Store) -> None:
    """Within the time for one piece, before the first byte and midway."""
    registry, version = store.registry(SHORT), await store.version()
    for sent in (0, 300_000):
        store.spoil(lambda reply, sent=sent: replace(reply, send=sent, stall=True), is_object)  # type: ignore[misc]  # a default binds it
        with pytest.raises(RegistryError, match=r"gave nothing for 0\.3 s") as caught:
            await content(registry, version)
        assert (caught.value.step, caught.value.may_pass) == ("fetch", True)


async def test_a_file_that_changes_midway_is_noticed(store: Store) -> None:
    """The rest of another file is never put behind the beginning of the first."""
    registry, version = store.registry(ReadLimits(retries=1)), await store.version()
    file = (await registry.files(version))[0]

    def cut(reply: Reply) -> Reply:
        store.bucket.objects["models/fraud/1/model.onnx"] = MODEL[::-1]
        return replace(reply, send=100_000)

    store.spoil(cut, lambda asked: is_object(asked) and "range" not in asked.headers)
    with pytest.raises(RegistryError) as caught:
        async for _ in registry.read(version, file, 0, None):
            pass
    assert caught.value.may_pass


async def test_reads_are_of_the_file_that_was_listed(store: Store) -> None:
    """The store itself is told which one is meant."""
    registry, version = store.registry(), await store.version()
    file = (await registry.files(version))[0]
    assert b"".join([piece async for piece in registry.read(version, file, 7, 9)]) == MODEL[7:9]
    assert store.server.asked[-1].headers["if-match"] == file.etag


async def test_a_file_of_another_size_is_noticed(store: Store) -> None:
    """Also by a store without etags."""
    registry, version = store.registry(), await store.version()
    store.bucket.objects["models/fraud/1/model.onnx"] = MODEL + b"more"
    with pytest.raises(RegistryError, match="another file"):
        await content(registry, version)


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"url": "gs://bucket/models", "credentials": {"bearer_token": SECRET}}, "/bucket?list-type=2"),
        (
            {"url": "az://bucket/models", "account": "risk", "credentials": {"sas_key": f"sig={SECRET}"}},
            "/bucket?",
        ),
    ],
)
async def test_other_clouds_are_asked_at_their_endpoint(
    store: Store, changes: dict[str, object], asked: str
) -> None:
    """With their own requests; a signature in the URL is in no message."""
    store.server.answer = lambda _: Reply(status=500)
    message = await fault(store.registry(PATIENT, **changes))
    assert store.server.asked[0].target.startswith(asked)
    assert "a fault of its own (500)" in message


AZURE_LISTING = b"""<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs><Blob>
<Name>models/fraud/3/model.onnx</Name><Properties><Last-Modified>Thu, 01 Jan 2026 00:00:00 GMT</Last-Modified>
<Etag>0x8D1</Etag><Content-Length>5</Content-Length>
<Content-Type>x/y</Content-Type><BlobType>BlockBlob</BlobType></Properties></Blob></Blobs>
<NextMarker/></EnumerationResults>"""


async def test_azure_lists_models(store: Store) -> None:
    """Its listing is another XML; the registry is the same."""
    store.server.answer = lambda _: Reply(body=AZURE_LISTING)
    model = await store.registry(
        url="az://bucket/models", account="risk", credentials={}, anonymous=True
    ).model("fraud")
    assert [version.label for version in model.versions] == ["3"]


def test_missing_credentials_are_told() -> None:
    """The client asks the cloud's metadata server for them, which elsewhere is not there."""
    error = GenericError("Error performing PUT http://169.254.169.254/latest/api/token - status code: 403")
    assert "needs credentials, and there are none" in str(store_fault("resolve", "s3://b", "'m'", error))


def test_certificates_that_are_not_trusted_are_told() -> None:
    """With what to do about it."""
    error = GenericError("HTTP error: ... invalid peer certificate: UnknownIssuer")
    assert "not trusted" in str(store_fault("resolve", "s3://b", "'m'", error))
