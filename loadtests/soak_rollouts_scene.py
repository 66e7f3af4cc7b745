"""A gateway with a rollout directory, the files in it, and users who keep asking and judge every answer."""

from __future__ import annotations

import asyncio
import json
import random
import struct
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from gateway.core.rollout import HashSpec
from gateway.routing.bucket import bucket_of, salted, unit_of
from loadtests.soak_http import HttpAnswer, HttpConnection, NoAnswer, request
from loadtests.soak_models import OFFSET, WIDTH, offset_model, publish
from loadtests.soak_server import GatewayProcess

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from loadtests.soak_server import Settings

PATIENCE_S: Final = 60.0
"""How long is waited for what must come; it bounds hangs alone, and is no expectation."""
PAUSE_S: Final = 0.02
"""Between two looks, and between two requests of one user."""
WHOLE: Final = 1024
"""Users send whole numbers below it."""
_FLOATS: Final = struct.Struct(f"<{WIDTH}f")
_SIDE: Final = 640
_PRODUCTS: Final = 4
_MOST_PROBLEMS: Final = 20


def slow_to_load(version: int) -> onnx.ModelProto:
    """Return the model `offset`, with tenths of a second of work for the runtime when it folds constants."""
    content = offset_model(version)
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [_SIDE, _SIDE])
    zeros = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0])
    products = [helper.make_node("MatMul", [f"c{n}", "c0"], [f"c{n + 1}"]) for n in range(_PRODUCTS)]
    graph = content.graph
    graph.initializer.append(shape)
    graph.node[0].output[0] = "sum"
    graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["c0"], value=zeros),
            *products,
            helper.make_node("ReduceMax", [f"c{_PRODUCTS}"], ["zero"], keepdims=0),
            helper.make_node("Add", ["sum", "zero"], ["y"]),
        ]
    )
    return content


def failing(version: int, share: float) -> onnx.ModelProto:
    """Return the model `offset` that fails for this share of the inputs: a lookup out of range.

    The first value of a row decides, which users spread evenly over [0, WHOLE).
    """
    content = offset_model(version)
    graph = content.graph
    limit = np.float32((1 - share) * WHOLE)
    for name, kind, dims, values in (
        ("limit", TensorProto.FLOAT, [1], [float(limit)]),
        ("first", TensorProto.INT64, [1], [0]),
        ("nothing", TensorProto.FLOAT, [1], [0.0]),
    ):
        graph.initializer.append(helper.make_tensor(name, kind, dims, values))
    graph.node[0].output[0] = "sum"
    graph.node.extend(
        [
            helper.make_node("Gather", ["x", "first"], ["of_rows"], axis=1),
            helper.make_node("GreaterOrEqual", ["of_rows", "limit"], ["beyond"]),
            helper.make_node("Cast", ["beyond"], ["place"], to=TensorProto.INT64),
            helper.make_node("Gather", ["nothing", "place"], ["looked_up"]),
            helper.make_node("ReduceMax", ["looked_up"], ["zero"], keepdims=0),
            helper.make_node("Add", ["sum", "zero"], ["y"]),
        ]
    )
    onnx.checker.check_model(content)
    return content


def until(holds: Callable[[], bool], what: str = "it") -> None:
    """Ask again until it holds.

    Raises:
        RuntimeError: it never did.
    """
    hopeless_s = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > hopeless_s:
            raise RuntimeError(f"{what} never came to hold")
        time.sleep(PAUSE_S)


def repository(directory: Path, *slow: int) -> Path:
    """Write the model `offset` in version 1, and in these versions, which take their time to load."""
    path = directory / "repository"
    publish(path, OFFSET, 1, offset_model(1))
    for version in slow:
        publish(path, OFFSET, version, slow_to_load(version))
    (directory / "rollouts").mkdir()
    return path


def settings(*models: str, **server: Any) -> Settings:
    """Return a configuration that serves version 1 of `offset` under each of these names, under files."""
    entry = {"path": f"repository/{OFFSET}", "versions": {"specific": [1]}}
    return {
        "server": {"ports": dict.fromkeys(("http", "grpc", "metrics", "admin"), 0), **server},
        "models": [{"name": name, **entry} for name in models or (OFFSET,)],
        "rollouts": {
            "directory": "rollouts",
            "state_directory": "state",
            "poll_interval_s": 0.1,
            "settle_s": 0.02,
        },
    }


def rollout(canary: int | str, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a rollout file that assigns by the header x-user-id; `more` overrides its keys."""
    return {
        "apiVersion": "gateway/v1",
        "kind": "Rollout",
        "name": OFFSET,
        "model": OFFSET,
        "targets": {"stable": 1, "canary": canary},
        "assign": {"key": [{"header": "x-user-id"}], "hash": {"salt": "soak"}},
        "steps": [*steps, {"promote": {"keep_stable_warm": "1s"}}],
    } | more


def put(directory: Path, content: dict[str, Any] | bytes, name: str = OFFSET) -> None:
    """Put a file in force by a rename."""
    draft = directory / "rollouts" / f".{name}.yaml"
    draft.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    draft.replace(directory / "rollouts" / f"{name}.yaml")


def bucket(user: str, salt: str = "soak") -> int:
    """Return the bucket of a user, from 0 up to but not including a million."""
    return bucket_of(unit_of(salted(HashSpec(salt)), user.encode()))


class RolloutGateway(GatewayProcess):
    """A gateway whose administration is asked."""

    def shown(self, path: str = "") -> dict[str, Any]:
        """Return a document of administration; without a path every rollout, file and split."""
        url = f"http://127.0.0.1:{self.ready['admin_port']}/rollouts{path}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def rollout(self, name: str = OFFSET) -> dict[str, Any] | None:
        """Return one rollout's document; None before there is one."""
        return next((one for one in self.shown()["rollouts"] if one["name"] == name), None)

    def is_in(self, *phases: str, name: str = OFFSET) -> bool:
        """Whether a rollout is in one of these phases."""
        found = self.rollout(name)
        return found is not None and found["phase"] in phases

    def operate(self, verb: str, name: str = OFFSET) -> None:
        """Do what an operator asks for; raises HTTPError where it is refused."""
        url = f"http://127.0.0.1:{self.ready['admin_port']}/rollouts/{name}/{verb}"
        head = {"content-type": "application/json", "x-gateway-request": "1"}
        with urllib.request.urlopen(urllib.request.Request(url, b"{}", head), timeout=30):
            pass

    def shares(self, model: str = OFFSET) -> dict[str, float]:
        """Return the share of each arm, from 0 to 1, as the metrics page has it."""
        found = {}
        for line in self._metrics():
            if line.startswith("gateway_route_share{") and f'model="{model}"' in line:
                labels, _, value = line.rpartition(" ")
                found[labels.partition('arm="')[2].partition('"')[0]] = float(value)
        return found

    def metric(self, sample: str) -> float:
        """Return the value of one line of the metrics page, named with its labels; 0 when there is none."""
        found = (line.rpartition(" ")[2] for line in self._metrics() if line.startswith(sample + " "))
        return float(next(found, "0"))

    def _metrics(self) -> list[str]:
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as page:
            text: str = page.read().decode()
            return text.splitlines()

    def is_ready(self, version: int, model: str = OFFSET) -> bool:
        """Whether a version is READY."""
        url = f"http://127.0.0.1:{self.http_port}/v2/models/{model}/versions/{version}/ready"
        try:
            with urllib.request.urlopen(url, timeout=30):
                return True
        except urllib.error.HTTPError:
            return False


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer that a user got.

    Attributes:
        at: seconds since the epoch.
        user: whose.
        arm: which answered; empty without a rollout.
        version: which answered.
        fallback: stable stood in.
    """

    at: float
    user: str
    arm: str
    version: int
    fallback: bool


@dataclass(slots=True)
class Answers:
    """What users got.

    Attributes:
        all: in the order of their coming.
        refused: connections refused or closed, and requests of which not a byte was answered.
        problems: everything else, in words.
    """

    all: list[Answer] = field(default_factory=list)
    refused: int = 0
    problems: list[str] = field(default_factory=list)

    def by_arm(self) -> Counter[str]:
        """Return how many answers each arm gave."""
        return Counter(answer.arm for answer in self.all)


def asking(user: str, values: tuple[float, ...], path: str = f"/v2/models/{OFFSET}/infer") -> bytes:
    """Return a request of a user with binary tensors both ways."""
    data = _FLOATS.pack(*values)
    described = (
        f'"name":"x","datatype":"FP32","shape":[1,{WIDTH}],"parameters":{{"binary_data_size":{len(data)}}}'
    )
    head = f'{{"parameters":{{"binary_data_output":true}},"inputs":[{{{described}}}]}}'.encode()
    length = str(len(head))
    return request("POST", path, head + data, Inference_Header_Content_Length=length, x_user_id=user)


def judged(answers: Answers, user: str, values: tuple[float, ...], answer: HttpAnswer) -> None:
    """Add an answer, right or not: it must be what the version that it names computes."""
    if answer.status != 200:
        if answer.status != 503 or "shutting down" not in answer.error:
            _problem(answers, f"HTTP {answer.status}: {answer.error}")
        return
    split = int(answer.headers["inference-header-content-length"])
    head = json.loads(answer.body[:split])
    version, parameters = int(head["model_version"]), head.get("parameters", {})
    if answer.body[split:] != _FLOATS.pack(*(value + version for value in values)):
        _problem(answers, f"version {version} answered {answer.body[split:].hex()} to {values}")
    arm = answer.headers.get("x-gateway-arm", "")
    if arm != parameters.get("gateway_arm", ""):
        _problem(answers, f"arm {arm!r} in the header, {parameters} in the body")
    answers.all.append(Answer(time.time(), user, arm, version, bool(parameters.get("gateway_fallback"))))


async def each_once(port: int, users: list[str], path: str = f"/v2/models/{OFFSET}/infer") -> Answers:
    """Let each of the users ask once, over a few connections."""
    answers = Answers()

    async def ask(some: list[str]) -> None:
        async with HttpConnection(port) as connection:
            for user in some:
                values = (float(len(answers.all) % WHOLE),) * WIDTH
                judged(answers, user, values, await connection.exchange(asking(user, values, path)))

    async with asyncio.TaskGroup() as group:
        for first in range(4):
            group.create_task(ask(users[first::4]))
    return answers


async def keep_asking(port: int, answers: Answers, stop: threading.Event, rate: float, seed: int = 0) -> None:
    """Let users ask over one connection at a time, at a rate, until told to stop or the server has gone."""
    chance = random.Random(seed)
    began_s, number = time.monotonic(), 0
    while not stop.is_set():
        try:
            async with HttpConnection(port) as connection:
                closing = False
                while not (stop.is_set() or closing):
                    number += 1
                    await asyncio.sleep(max(0.0, began_s + number / rate - time.monotonic()))
                    values = tuple(float(chance.randrange(WHOLE)) for _ in range(WIDTH))
                    user = f"user-{chance.randrange(1000)}"
                    answer = await connection.exchange(asking(user, values))
                    judged(answers, user, values, answer)
                    closing = answer.closing
        except NoAnswer as gone:
            if gone.partial:
                _problem(answers, f"an answer was broken off: {gone}")
            answers.refused += 1
        except ConnectionError:
            answers.refused += 1
            return


def _problem(answers: Answers, text: str) -> None:
    if len(answers.problems) < _MOST_PROBLEMS:
        answers.problems.append(text)
