"""Any bytes to the HTTP/2 core: it never raises, keeps to its limits, and no read boundary matters."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.transport.grpc_wire.exchanges import exchanges
from tests.transport.grpc_wire.frames import GREETING, Type, frame
from tests.transport.http2.peer import LIMITS, Peer

if TYPE_CHECKING:
    from typing import Any

    from gateway.transport.http2.recorded_stream import RecordedStream

EXAMPLES = int(os.environ.get("GATEWAY_FUZZ_EXAMPLES", "200"))
"""Set higher for a soak."""
FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
WINDOW_UPDATE = 8


class EchoPeer(Peer):
    """A client of a connection whose application echoes."""

    def answer(self, call: RecordedStream) -> None:
        self.reply(call.id, call.received)

    def result(self) -> Any:
        """What became of everything, but for when credit was given."""
        calls = {id_: (call.received, call.ended, call.reset_code) for id_, call in self.calls.items()}
        sent = [frame for frame in self.taken() if frame.kind != WINDOW_UPDATE]
        return calls, sent, self.fault(), self.fired

    def assert_bounded(self) -> None:
        assert len(self.connection.table.open) <= (LIMITS.max_streams or 0)
        assert self.connection.windows.held <= LIMITS.connection_window_bytes
        assert self.connection.sender.unsent_bytes <= LIMITS.max_unsent_bytes


FRAMES = st.builds(
    frame,
    st.one_of(st.sampled_from(list(Type)), st.integers(0, 255)),
    st.integers(0, 255),
    st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1)),
    st.binary(max_size=60),
    st.one_of(st.none(), st.none(), st.none(), st.integers(0, 2**24 - 1)),
)
EXCHANGES = exchanges().map(lambda exchange: b"".join(exchange.parts))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """An exchange with a few bytes changed, left out or repeated."""
    raw = draw(EXCHANGES)[:4000]
    for _ in range(draw(st.integers(0, 3))):
        at, size = draw(st.integers(0, len(raw))), draw(st.sampled_from([1, 1, 2, 9, 30]))
        put = draw(st.one_of(st.binary(max_size=4), st.just(raw[at : at + size] * 2), FRAMES))
        raw = raw[:at] + put + raw[at + size :]
    return raw


INPUTS = st.one_of(st.binary(max_size=300), st.lists(FRAMES, max_size=12).map(b"".join), mutated())


@FUZZ
@given(INPUTS, st.booleans(), st.data())
def test_read_boundaries_do_not_matter(raw: bytes, greeted: bool, data: st.DataObject) -> None:
    """The same bytes in one read, in some, and one by one come to the same, and nothing raises."""
    raw = GREETING + raw if greeted else raw
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    whole, pieces, single = (EchoPeer(greet=False) for _ in range(3))
    whole.send(raw)
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        pieces.send(raw[start:end])
        pieces.assert_bounded()
    for at in range(len(raw)):
        single.send(raw[at : at + 1])
    expected = whole.result()
    assert pieces.result() == expected
    assert single.result() == expected


@FUZZ
@given(st.lists(st.one_of(INPUTS, st.floats(0, 100)), max_size=8))
def test_time_may_pass_anywhere(script: list[bytes | float]) -> None:
    """Timeouts in between end calls or connections, but nothing raises, and the end frees everything."""
    peer = EchoPeer()
    for step in script:
        if isinstance(step, bytes):
            peer.send(step)
        else:
            peer.pass_time(step)
        peer.taken()
        peer.assert_bounded()
    peer.connection.close()
    assert not peer.connection.table.open
    peer.pass_time(1.0)
