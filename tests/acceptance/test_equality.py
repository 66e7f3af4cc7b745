"""Real models under 64 concurrent clients: every answer equals ONNX Runtime called directly.

Each model is served as it comes, and with one allowed batch size, where answers must be equal bit
for bit. A bit may depend on where in a batch a row lies (the kernels work on blocks of rows), so there an
answer must equal the direct run with its rows in the same place, for one of the places they can have had.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import tritonclient.grpc.aio
import tritonclient.http.aio
from tritonclient.utils import np_to_triton_dtype

from tests.acceptance.clients import connected
from tests.acceptance.process import ROOT, RunningGateway, serving
from tests.acceptance.test_describe import counters
from tests.acceptance.zoo import write_config

if TYPE_CHECKING:
    from pathlib import Path

Arrays = Mapping[str, npt.NDArray[Any]]
CLIENTS = 64
THREADS = 1
"""Of each session, the gateway's and ours: sums may come out otherwise with another number."""
_RANDOM = np.random.default_rng(20)


@dataclass(frozen=True)
class Subject:
    """A model and what is asked of it.

    Attributes:
        path: its directory.
        axes: tensor -> batch axis; none for what the rows share.
        scores: the output whose last axis has a value for each label.
        payloads: inputs of requests, of unequal row counts.
        fixed_rows: the only batch size of the variant that allows one.
        settings: further settings of the model.
    """

    path: Path
    axes: Mapping[str, int]
    scores: str
    payloads: Sequence[Arrays]
    fixed_rows: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def session(self) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        return onnxruntime.InferenceSession(max(self.path.glob("*/model.onnx")), options)

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Call ONNX Runtime directly."""
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, dict(inputs)), strict=True))

    def rows(self, inputs: Arrays) -> int:
        return next(int(array.shape[self.axes[name]]) for name, array in inputs.items() if name in self.axes)

    def run_within(self, inputs: Arrays, total: int, start: int) -> dict[str, npt.NDArray[Any]]:
        """Call ONNX Runtime with `total` rows, all zero but those of `inputs` from `start`; return these."""
        place = slice(start, start + self.rows(inputs))
        outputs = self.run({name: self._placed(name, array, total, place) for name, array in inputs.items()})
        return {name: array[_along(self.axes[name], place)] for name, array in outputs.items()}

    def _placed(self, name: str, array: npt.NDArray[Any], total: int, place: slice) -> npt.NDArray[Any]:
        if name not in self.axes:
            return array
        axis = self.axes[name]
        placed = np.zeros((*array.shape[:axis], total, *array.shape[axis + 1 :]), array.dtype)
        placed[_along(axis, place)] = array
        return placed


def _along(axis: int, place: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, place)


def _pixels(rows: int) -> Arrays:
    return {"pixels": _RANDOM.integers(0, 17, (rows, 64)).astype(np.float32)}


def _file_windows(rows: int) -> Arrays:
    files = sorted((ROOT / "src" / "gateway").rglob("*.py"))[: 7 * rows : 7]
    windows = np.full((rows, 2048), 256, np.int32)  # 256 stands for: no byte here
    for window, file in zip(windows, files, strict=True):
        content = np.frombuffer(file.read_bytes().strip(), np.uint8)
        window[:1024][: len(content)] = content[:1024]
        window[2048 - min(1024, len(content)) :] = content[-1024:]
    return {"bytes": windows}


def _image(rows: int, width: int) -> Arrays:
    return {"x": _RANDOM.uniform(-1, 1, (rows, 3, 48, width)).astype(np.float32)}


def _sound(rows: int, rate: int) -> Arrays:
    samples = {8000: 288, 16000: 576}[rate]
    return {
        "input": _RANDOM.uniform(-0.5, 0.5, (rows, samples)).astype(np.float32),
        "state": _RANDOM.uniform(-0.5, 0.5, (2, rows, 128)).astype(np.float32),
        "sr": np.array(rate, np.int64),
    }


_TEST_MODELS = ROOT / "build" / "test-models"
_VAD_AXES = {"input": 0, "state": 1, "output": 0, "stateN": 1}
_BUCKETS = (128, 192)
_PADDING = {
    "pad": [{"input": "x", "axis": 3, "buckets": list(_BUCKETS)}],
    "cut": [{"output": "softmax_11.tmp_0", "axis": 1, "input": "x", "input_axis": 3}],
}
SUBJECTS = {
    "digits": Subject(
        ROOT / "models" / "digits",
        {"pixels": 0, "probabilities": 0},
        "probabilities",
        [_pixels(rows) for rows in (1, 2, 3, 5, 8)],
        fixed_rows=16,
    ),
    "filetype": Subject(
        ROOT / "models" / "filetype",
        {"bytes": 0, "target_label": 0},
        "target_label",
        [_file_windows(rows) for rows in (1, 2, 3, 5)],
        fixed_rows=8,
    ),
    "recogniser": Subject(
        _TEST_MODELS / "recogniser",
        {"x": 0, "softmax_11.tmp_0": 0},
        "softmax_11.tmp_0",
        [_image(1, 96), _image(2, 96), _image(1, 160), _image(2, 160), _image(1, 128)],
        fixed_rows=3,
    ),
    "silero_vad": Subject(
        _TEST_MODELS / "silero_vad",
        _VAD_AXES,
        "output",
        [_sound(rows, rate) for rate in (8000, 16000) for rows in (1, 2, 3, 5)],
        fixed_rows=8,
        settings={"batch_axes": {**_VAD_AXES, "sr": None}},
    ),
}


def _settings(subject: Subject, name: str, batching: Mapping[str, Any]) -> dict[str, Any]:
    # A little delay, so that requests do share runs however slowly the clients send them.
    return {
        "name": name,
        "path": str(subject.path),
        "onnxruntime": {"intra_op_threads": THREADS, "providers": ["cpu"]},
        "batching": {"max_delay_s": 0.005, **batching},
        **subject.settings,
    }


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """Every model and its variants, on one transport: numbers do not depend on what carries them."""
    if missing := [str(s.path) for s in SUBJECTS.values() if not s.path.exists()]:
        pytest.skip(f"`make test` fetches {', '.join(missing)}")
    models = [_settings(subject, name, {}) for name, subject in SUBJECTS.items()]
    models += [
        _settings(subject, f"{name}_fixed", {"allowed_rows": [subject.fixed_rows]})
        for name, subject in SUBJECTS.items()
    ]
    models.append(_settings(SUBJECTS["recogniser"], "recogniser_padded", _PADDING))
    directory = tmp_path_factory.mktemp("equality")
    with serving(
        directory / "log", "--config", write_config(directory / "gateway.yaml", {"models": models})
    ) as gateway:
        assert set(gateway.states().values()) == {"READY"}, gateway.states()
        yield gateway


@dataclass(frozen=True)
class Answered:
    """One answer: which payload it is to, and its outputs."""

    payload: int
    outputs: dict[str, npt.NDArray[Any]]


async def ask(gateway: RunningGateway, model: str, subject: Subject, requests: int) -> list[Answered]:
    """Ask from 64 clients at once, half over each transport, `requests` each; return every answer."""
    turns = itertools.cycle(range(len(subject.payloads)))
    plans = [[next(turns) for _ in range(requests)] for _ in range(CLIENTS)]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_client(number, gateway, model, [(p, subject.payloads[p]) for p in plan]))
            for number, plan in enumerate(plans)
        ]
    return [answered for task in tasks for answered in task.result()]


async def _client(
    number: int, gateway: RunningGateway, model: str, plan: Sequence[tuple[int, Arrays]]
) -> list[Answered]:
    api, address = ((tritonclient.http, gateway.http), (tritonclient.grpc, gateway.grpc))[number % 2]
    async with api.aio.InferenceServerClient(address) as client:
        answers = []
        for payload, arrays in plan:
            result = await client.infer(model, [_input(api, name, array) for name, array in arrays.items()])
            response = result.get_response()
            outputs = response["outputs"] if isinstance(response, dict) else response.outputs
            names = [output["name"] if isinstance(output, dict) else output.name for output in outputs]
            answers.append(Answered(payload, {name: result.as_numpy(name) for name in names}))
    return answers


def _input(api: Any, name: str, array: npt.NDArray[Any]) -> Any:
    return api.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)).set_data_from_numpy(array)


def assert_shared_runs(gateway: RunningGateway, model: str, requests: int) -> None:
    """Requests did share runs: there were fewer runs than requests."""
    with connected("grpc", gateway) as client:
        version = "2" if model.startswith("digits") else "1"
        counted = counters(client, model, version)
    assert counted["success.count"] == requests
    assert counted["execution_count"] < requests


def assert_same_labels(subject: Subject, answered: Answered, direct: Mapping[str, npt.NDArray[Any]]) -> None:
    got, expected = answered.outputs[subject.scores], direct[subject.scores]
    assert got.shape == expected.shape
    if expected.shape[-1] > 1:
        np.testing.assert_array_equal(got.argmax(-1), expected.argmax(-1))


def assert_close(answered: Answered, direct: Mapping[str, npt.NDArray[Any]]) -> None:
    assert answered.outputs.keys() == direct.keys()
    for name, array in direct.items():
        np.testing.assert_allclose(answered.outputs[name], array, rtol=1e-5)


@pytest.mark.parametrize("name", ["digits", "recogniser", "silero_vad"])
async def test_equal_to_direct_runs_of_each_request(gateway: RunningGateway, name: str) -> None:
    """Whatever shared its run, a request is answered as if it had been alone: rtol 1e-5, same label."""
    subject = SUBJECTS[name]
    direct = [subject.run(payload) for payload in subject.payloads]
    answers = await ask(gateway, name, subject, requests=2)
    assert len(answers) == 2 * CLIENTS
    for answered in answers:
        assert_close(answered, direct[answered.payload])
        assert_same_labels(subject, answered, direct[answered.payload])
    assert_shared_runs(gateway, name, len(answers))


async def test_labels_of_filetype_in_batches_of_any_size(gateway: RunningGateway) -> None:
    """Its layer norm subtracts sums nearly equal: scores depend on the batch size, labels do not."""
    subject = SUBJECTS["filetype"]
    direct = [subject.run(payload) for payload in subject.payloads]
    answers = await ask(gateway, "filetype", subject, requests=2)
    for answered in answers:
        assert_same_labels(subject, answered, direct[answered.payload])
        np.testing.assert_allclose(
            answered.outputs[subject.scores], direct[answered.payload][subject.scores], atol=1e-3
        )
    assert_shared_runs(gateway, "filetype", len(answers))


@pytest.mark.parametrize("name", SUBJECTS)
async def test_bit_for_bit_at_a_fixed_batch_size(gateway: RunningGateway, name: str) -> None:
    """Each answer has every bit of a direct run of that size with its rows in the same place."""
    subject = SUBJECTS[name]
    places = [
        [
            subject.run_within(p, subject.fixed_rows, s)
            for s in range(subject.fixed_rows - subject.rows(p) + 1)
        ]
        for p in subject.payloads
    ]
    answers = await ask(gateway, f"{name}_fixed", subject, requests=1)
    for answered in answers:
        candidates = places[answered.payload]
        assert any(_same_bits(answered.outputs, direct) for direct in candidates)
        assert_close(answered, candidates[0])
        assert_same_labels(subject, answered, candidates[0])
    assert_shared_runs(gateway, f"{name}_fixed", len(answers))


def _same_bits(got: Mapping[str, npt.NDArray[Any]], expected: Mapping[str, npt.NDArray[Any]]) -> bool:
    return all(got[name].tobytes() == array.tobytes() for name, array in expected.items())


async def test_padded_widths(gateway: RunningGateway) -> None:
    """Images padded to buckets answer as images that came so wide, cut back to what was asked."""
    subject = SUBJECTS["recogniser"]
    direct = [_run_padded(subject, payload["x"]) for payload in subject.payloads]
    answers = await ask(gateway, "recogniser_padded", subject, requests=1)
    for answered in answers:
        assert_close(answered, direct[answered.payload])
        assert_same_labels(subject, answered, direct[answered.payload])
    assert_shared_runs(gateway, "recogniser_padded", len(answers))


def _run_padded(subject: Subject, image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
    width = image.shape[3]
    bucket = next(size for size in _BUCKETS if size >= width)
    padded = np.pad(image, ((0, 0), (0, 0), (0, 0), (0, bucket - width)))
    (characters,) = subject.run({"x": padded}).values()
    kept = -(-characters.shape[1] * width // bucket)
    return {subject.scores: characters[:, :kept]}
