"""The adapters of peers: real servers where they are installed, small programs for what may go wrong."""

import os
import signal
import socket
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from loadtests import peers
from loadtests.peers import running, venvs
from loadtests.peers.asking import NoAnswer, ask
from loadtests.peers.base import (
    GRPC_PROTOCOLS,
    HTTP_PROTOCOLS,
    PeerUnavailable,
    Place,
    WireAnswer,
    free_ports,
)
from loadtests.peers.running import Launch
from loadtests.peers.server_peer import ServerPeer
from loadtests.peers.servers.one_thread import OneThreadModel, body_of, rows_of
from loadtests.peers.wires import BareRows, Echoed, OpenInference, RowsAsJson
from loadtests.requests_on_file import BenchModel, same
from onnx_mlp import Names, mlp

Floats = npt.NDArray[np.float32]
VENVS = Path(__file__).resolve().parents[2] / "build" / "peers"
FEATURES, COLUMNS = 6, 3


def adapter(name: str) -> ServerPeer:
    peer = peers.find(name)
    assert isinstance(peer, ServerPeer)
    return peer


REAL = [name for name in peers.NAMES if adapter(name).packages]
CEILINGS = [name for name in peers.NAMES if name not in REAL]


@pytest.fixture
def model(tmp_path: Path) -> BenchModel:
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(FEATURES, COLUMNS)).astype(np.float32)
    folder = tmp_path / "tiny" / "1"
    folder.mkdir(parents=True)
    made = mlp(Names("tiny", "x", "y"), [(weights, np.zeros(COLUMNS, np.float32))], softmax=False)
    onnx.save(made, folder / "model.onnx")
    return BenchModel("tiny", folder.parent, 1, "x", FEATURES)


@pytest.fixture
def place(tmp_path: Path, model: BenchModel) -> Place:
    (tmp_path / "work").mkdir()
    return Place(tmp_path / "venv", model, tmp_path / "work", cores="0")


def rows(count: int) -> Floats:
    return np.random.default_rng(count).random((count, FEATURES), np.float32)


def program(source: str, port: int) -> ServerPeer:
    """Return a peer whose server is a program of a few lines."""
    return ServerPeer(
        name="program",
        label="program",
        protocols=("http-raw",),
        packages=(),
        settings={},
        launch=lambda _: Launch([sys.executable, "-c", source], {"http-raw": port}),
        wire=BareRows("/"),
    )


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
"""127.0.0.1, the same within IPv6, and ::1, as /proc/net writes them."""


def listeners_beyond_loopback(pid: int) -> list[str]:
    """Return the addresses and ports, in hexadecimal, on which a process or one that it started listens."""
    environment = (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
    (mark,) = (entry for entry in environment if entry.startswith(running._MARK.encode()))
    sockets = set()
    for process in running._marked(mark.decode().partition("=")[2]):
        for descriptor in (Path("/proc") / str(process) / "fd").iterdir():
            with suppress(FileNotFoundError):
                sockets.add(descriptor.readlink().name)
    tables = (Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6"))
    lines = [line.split() for table in tables for line in table.splitlines()]
    listening = [fields for fields in lines if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets]
    assert listening
    return [fields[1] for fields in listening if fields[1].partition(":")[0] not in LOOPBACK]


def serves_and_is_gone(peer: ServerPeer, place: Place) -> None:
    """Start a peer, compare its answers over every protocol with ONNX Runtime's, and look what is left."""
    reference = onnxruntime.InferenceSession(place.model.file)
    with peer.start(place) as server:
        server.wait_ready()
        assert not listeners_beyond_loopback(server.pid)
        for protocol in peer.protocols:
            for count in (1, 5):
                request = peer.request(protocol, place.model, rows(count))
                answer = ask(protocol, server.addresses[protocol], request)
                expected = rows(count) if peer.echoes else reference.run(None, {"x": rows(count)})[0]
                assert same(peer.read(protocol, answer), expected), protocol
    assert not (Path("/proc") / str(server.pid)).exists()
    for address in server.addresses.values():
        socket.create_server(address).close()


@pytest.mark.parametrize("name", CEILINGS)
def test_a_ceiling_answers_and_leaves_nothing(name: str, place: Place) -> None:
    """It runs in the project's own environment; what it answers is checked, its port is free afterwards."""
    serves_and_is_gone(adapter(name), place)


@pytest.mark.slow
@pytest.mark.timeout(300)  # Ray alone starts a dozen processes
@pytest.mark.parametrize("name", REAL)
def test_an_installed_peer_answers_as_onnx_runtime_and_leaves_nothing(
    name: str, tmp_path: Path, model: BenchModel
) -> None:
    """Over each of its protocols, with one row and with several."""
    peer, venv = adapter(name), VENVS / name
    if not venvs.is_installed(venv, peer.packages):
        pytest.skip(f"{name} is not installed: python -m loadtests peers does it")
    workdir = tmp_path / "work"
    workdir.mkdir()
    serves_and_is_gone(peer, Place(venv, model, workdir, cores="0"))


@pytest.mark.parametrize("name", peers.NAMES)
def test_adapters_say_what_they_are(name: str) -> None:
    """Every name leads to its adapter, with known protocols, pinned packages, and settings to print."""
    peer = adapter(name)
    assert peer.name == name
    assert peer.label
    assert peer.settings
    assert peer.protocols
    assert set(peer.protocols) <= {*HTTP_PROTOCOLS, *GRPC_PROTOCOLS}
    assert all("==" in package for package in peer.packages)


def test_no_such_peer() -> None:
    """The error lists those there are."""
    with pytest.raises(LookupError, match="mosec"):
        peers.find("nginx")


def test_a_server_that_ends_is_reported_with_its_last_words(place: Place) -> None:
    """The reason for the report is what it wrote."""
    peer = program("print('no room on this machine'); raise SystemExit(3)", free_ports(1)[0])
    with (
        peer.start(place) as server,
        pytest.raises(PeerUnavailable, match="ended with 3: no room on this machine"),
    ):
        server.wait_ready()


def test_a_server_that_never_answers_is_reported(place: Place) -> None:
    """When the time is up the reason is what the last attempt met."""
    peer = program("import signal; signal.pause()", free_ports(1)[0])
    with peer.start(place) as server, pytest.raises(PeerUnavailable, match="not ready over http-raw"):
        server.wait_ready(timeout_s=0)


def test_a_server_whose_program_is_missing_is_reported(place: Place) -> None:
    """It ends at once, and taskset says why."""
    peer = program("", free_ports(1)[0])
    peer.launch = lambda _: Launch(["/nowhere/server"], {"http-raw": free_ports(1)[0]})
    with peer.start(place) as server, pytest.raises(PeerUnavailable, match="/nowhere/server"):
        server.wait_ready()


STRAY = """
import os, signal, socket, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        listener = socket.create_server(("127.0.0.1", {port}))
        print(os.getpid(), flush=True)
        signal.pause()
    os._exit(0)
os.wait()
signal.pause()
"""


def test_processes_that_left_the_session_are_stopped_too(place: Place) -> None:
    """One that lost its parent, has a session of its own, ignores SIGTERM and holds the port."""
    (port,) = free_ports(1)
    peer = program(STRAY.format(port=port), port)
    with peer.start(place) as server:
        with pytest.raises(PeerUnavailable, match="not ready"):
            server.wait_ready(timeout_s=0)
        while not (stray := (place.workdir / "peer.log").read_text().strip()):
            assert server.process.poll() is None
        os.kill(int(stray), signal.SIGTERM)
        assert (Path("/proc") / stray / "exe").exists()
    assert not (Path("/proc") / stray / "exe").exists()  # a zombie, at most, until init has seen it
    socket.create_server(("127.0.0.1", port)).close()


def test_the_home_and_temporary_folders_of_a_server_are_its_own_and_removed(place: Place) -> None:
    """So that no peer writes into the user's."""
    peer = program("import os; print(os.environ['HOME'], os.environ['TMPDIR'])", free_ports(1)[0])
    with peer.start(place) as server:
        server.process.wait()
        home, scratch = (place.workdir / "peer.log").read_text().split()
        assert home == scratch
        assert Path(scratch).is_dir()
    assert not Path(scratch).exists()


def wheel(folder: Path, version: str) -> str:
    """Write a wheel with one module and return its path, which pip takes as a requirement."""
    name = f"peerling-{version}"
    path = folder / f"{name}-py3-none-any.whl"
    info = f"{name}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("peerling.py", f"VERSION = {version!r}\n")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: peerling\nVersion: {version}\n")
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        file.writestr(f"{info}/WHEEL", tags)
        files = ("peerling.py", *(f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD")))
        file.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in files))
    return str(path)


@pytest.mark.slow
def test_a_venv_is_made_once_for_the_same_packages(tmp_path: Path) -> None:
    """A second time nothing is touched; other packages mean a fresh one."""
    venv, first = tmp_path / "venv", wheel(tmp_path, "1")
    venvs.install(venv, (first,))
    module = next(venv.glob("lib/*/site-packages/peerling.py"))
    (venv / "mine").touch()
    venvs.install(venv, (first,))
    assert (venv / "mine").exists()
    venvs.install(venv, (wheel(tmp_path, "2"),))
    assert not (venv / "mine").exists()
    assert "2" in module.read_text()


@pytest.mark.slow
def test_a_peer_that_cannot_be_installed_is_reported_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pip said last, and nothing that a later attempt would take for an installation."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    packages = ("peerling==7",)
    with pytest.raises(PeerUnavailable, match="No matching distribution found for peerling==7"):
        venvs.install(tmp_path / "venv", packages)
    assert not venvs.is_installed(tmp_path / "venv", packages)


def test_bare_rows_pass_through_the_servers_side(model: BenchModel) -> None:
    """What the adapter writes the script reads, and the other way round."""
    wire = BareRows("/")
    got = rows_of(wire.request("http-raw", model, rows(3)).body)
    np.testing.assert_array_equal(got, rows(3))
    np.testing.assert_array_equal(wire.read("http-raw", WireAnswer({}, body_of(rows(2)))), rows(2))


def test_a_batch_is_divided_as_it_was_put_together(model: BenchModel) -> None:
    """Each part gets the rows that it would have had by itself."""
    runs = OneThreadModel(str(model.file))
    parts = [rows(count) for count in (1, 4, 2)]
    for part, output in zip(parts, runs.run_together(parts), strict=True):
        np.testing.assert_allclose(output, runs.run(part), rtol=1e-6)


@pytest.mark.parametrize("body", [b"", b"\x01", b"\x02\0\0\0abc", b"\x03\0\0\0abcdefgh", b"[", b"{}"])
@pytest.mark.parametrize(
    ("wire", "protocol"),
    [
        (BareRows("/"), "http-raw"),
        (RowsAsJson("/", "rows"), "http-json"),
        *((OpenInference(), protocol) for protocol in ("http-json", "http-binary", "grpc", "grpc-stream")),
        *((Echoed(), protocol) for protocol in ("http-binary", "grpc")),
    ],
)
def test_an_answer_that_cannot_be_read_is_a_value_error(
    wire: BareRows | RowsAsJson | OpenInference | Echoed, protocol: str, body: bytes
) -> None:
    """Whatever a peer sends, it counts as a wrong answer and does not stop a measurement."""
    with pytest.raises(ValueError, match=r"."):
        wire.read(protocol, WireAnswer({}, body))


def test_asking_nobody_is_no_answer(model: BenchModel) -> None:
    """Over HTTP and over gRPC."""
    address = ("127.0.0.1", free_ports(1)[0])
    for protocol in ("http-binary", "grpc", "grpc-stream"):
        with pytest.raises(NoAnswer):
            ask(protocol, address, OpenInference().request(protocol, model, rows(1)), timeout_s=5)


def test_ports_are_not_those_that_the_kernel_gives_to_clients() -> None:
    """A connection that the server itself opens meanwhile cannot take them."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert max(ports) < first
