"""The OpenAPI document against the route table and against what the routes answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.api.http_routes import http_routes
from gateway.api.openapi import DESCRIPTIONS, description_of, openapi_document
from gateway.api.server_metadata import ServerMetadata
from gateway.core.calls import HttpRoute
from tests.api.drivers import HttpDriver
from tests.properties import examples

if TYPE_CHECKING:
    from gateway.api.context import ApiContext

METADATA = ServerMetadata("model-gateway", "1.2.3")


@pytest.fixture
def http(context: ApiContext) -> HttpDriver:
    return HttpDriver(http_routes(context))


async def test_document_and_routes_are_the_same(http: HttpDriver) -> None:
    """Every route is in the document under its method, and the document has nothing else."""
    document = (await http.fetch("GET", "/openapi.json")).json
    described = {(m.upper(), path) for path, item in document["paths"].items() for m in item}
    assert described == {(route.method, route.pattern) for route in http.routes}
    assert document["openapi"] == "3.1.0"


async def test_every_description_belongs_to_a_route(http: HttpDriver) -> None:
    """No description is left over when a route goes."""
    used = {id(description_of(route)) for route in http.routes}
    assert [name for name, d in DESCRIPTIONS.items() if id(d) not in used] == []


async def test_document_is_sound(http: HttpDriver) -> None:
    """References lead somewhere, operation ids and path parameters agree, schemas are JSON Schema."""
    reply = await http.fetch("GET", "/openapi.json")
    document = reply.json
    operations = [(p, op) for p, item in document["paths"].items() for op in item.values()]
    ids = [op["operationId"] for _, op in operations]
    assert len(ids) == len(set(ids))
    for path, operation in operations:
        named = {p["name"] for p in operation["parameters"] if p.get("in") == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))
    for reference in re.findall(
        r'"\$ref":"#/([^"]+)"', (await http.fetch("GET", "/openapi.json")).body.decode()
    ):
        node: Any = document
        for part in reference.split("/"):
            node = node[part]
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("operation_id", ["nothing", "serverLive"])
def test_undescribed_and_repeated_routes_are_refused(operation_id: str) -> None:
    """A route without a description, or a second one with the same name, can't get into the document."""
    known = HttpRoute("GET", "/a", operation_id="serverLive")
    with pytest.raises(ValueError, match=operation_id):
        openapi_document([known, HttpRoute("GET", "/b", operation_id=operation_id)], METADATA)


def validator(document: Any, schema: Any) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**schema, "components": document["components"]})


SEGMENTS = st.sampled_from(["rows", "many", "late", "none", "1", "2", "9", "0", "x", "stats", "\u00e4 b"])
BODIES = st.one_of(
    st.sampled_from(
        [
            b"",
            b"{}",
            b"[]",
            b'{"ready":true}',
            b'{"log_info":true}',
            b'{"trace_rate":"5"}',
            b'{"x":[1,2]}',
            b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}',
            b'{"inputs":[{"name":"x","datatype":"BYTES","shape":[1],"data":["a"]}]}',
            b'{"parameters":{"config":"{}"}}',
        ]
    ),
    st.binary(max_size=20),
)
HEADERS = st.dictionaries(
    st.sampled_from(["inference-header-content-length", "x-request-timeout-ms", "x-server-timing", "accept"]),
    st.sampled_from(["0", "1", "8", "-1", "x", "text/html"]),
)


@settings(
    max_examples=examples(400), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
async def test_every_answer_is_documented(http: HttpDriver, data: st.DataObject) -> None:
    """Whatever is asked, status, media type and JSON body are as the document says, and never a 500."""
    document = (await http.fetch("GET", "/openapi.json")).json
    route = data.draw(st.sampled_from(http.routes))
    path = re.sub(r"{\w+}", lambda _: data.draw(SEGMENTS), route.pattern)
    found, _ = http.find(route.method, path)
    reply = await http.fetch(route.method, path, data.draw(BODIES), data.draw(HEADERS))
    responses = document["paths"][found.pattern][found.method.lower()]["responses"]
    assert str(reply.status) in responses
    assert reply.status != 500
    content = responses[str(reply.status)]["content"]
    media = reply.headers["content-type"].split(";")[0]
    assert media in content
    if media == "application/json":
        validator(document, content[media]["schema"]).validate(reply.json)
