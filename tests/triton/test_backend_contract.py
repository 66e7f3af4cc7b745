"""A fleet of one real tritonserver as a Backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.core.remote import Address
from tests.backends.backend_contract import BackendContract, BackendUnderTest
from tests.backends.triton.fleets import fleet_of
from tests.backends.triton.under_contract import under_contract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.triton.server import TritonServer


class TestTriton(BackendContract):
    """The server that other tests share."""

    @pytest.fixture
    async def subject(self, triton_zoo: TritonServer) -> AsyncIterator[BackendUnderTest]:
        async with fleet_of(Address("127.0.0.1", triton_zoo.grpc_port)) as scene:
            yield under_contract(scene, "slow")
