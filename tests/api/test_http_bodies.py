"""JSON bodies that carry no tensors."""

from gateway.api.http_bodies import json_response


def test_descriptions_and_errors_are_never_compressed() -> None:
    """tritonclient.http.aio announces gzip on every call and undoes it on inference responses alone."""
    assert not json_response({"name": "m"}).compressible
    assert not json_response({"error": "e"}, 400).compressible
