"""The batcher, and the fake that stands in for services, as InferenceServices."""

import pytest

from gateway.testing import EchoService, FakeLoadedModel
from tests.batching.harness import Harness, request
from tests.batching.service_contract import InferenceServiceContract, ServiceUnderTest


class TestBatcher(InferenceServiceContract):
    """A batcher over a held model."""

    @pytest.fixture
    def subject(self) -> ServiceUnderTest:
        model = FakeLoadedModel(held=True)
        return ServiceUnderTest(Harness(model).batcher, request, model.release)


class TestEchoService(InferenceServiceContract):
    """The fake that other parts are tested against."""

    @pytest.fixture
    def subject(self) -> ServiceUnderTest:
        return ServiceUnderTest(EchoService(), request, lambda: None)
