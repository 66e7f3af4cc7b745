"""Ask a running gateway what kind of files these are: prints each one's label and score, as magika would."""

import argparse
import http.client
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

_RULES = Path(__file__).resolve().parent.parent / "models" / "filetype" / "rules.json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a file is, and how sure that is (0 to 1)."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Rules:
    """The constants of magika's model, as `make models` takes them from the wheel.

    Attributes:
        beg_size: Features from the beginning of a file.
        end_size: Features from its end.
        block_size: Bytes read at each end, before white space is stripped.
        padding_token: The feature where the file has no byte: no byte's value.
        min_file_size_for_dl: With fewer bytes than this the network is not asked.
        medium_confidence_threshold: The score to trust a label at, where `thresholds` names none.
        thresholds: The score to trust a label at.
        overwrite_map: Labels of the network that stand for another one.
        labels: The network's labels in class order.
        text_labels: Labels that mean some kind of text.
    """

    beg_size: int
    end_size: int
    block_size: int
    padding_token: int
    min_file_size_for_dl: int
    medium_confidence_threshold: float
    thresholds: dict[str, float]
    overwrite_map: dict[str, str]
    labels: list[str]
    text_labels: list[str]


def inspect(file: BinaryIO, rules: Rules) -> Answer | npt.NDArray[np.int32]:
    """Return the answer where it needs no network, else the features to ask it with.

    Args:
        file: A seekable binary file; its position is left anywhere.
        rules: The model's constants.

    Returns:
        An answer, for an empty file or one with too few bytes that are not white space; else int32 features
        `[beg_size + end_size]`.
    """
    size = file.seek(0, 2)
    window = min(size, rules.block_size)
    file.seek(0)
    begin = file.read(window)
    if size == 0:
        return Answer("empty", 1.0)
    if len(begin.lstrip()) < rules.min_file_size_for_dl:
        return Answer("txt" if _is_utf8(begin) else "unknown", 1.0)
    file.seek(size - window)
    return _features(begin.lstrip(), file.read(window).rstrip(), rules)


def decide(scores: Sequence[float], rules: Rules) -> Answer:
    """Turn one row of class scores into magika's answer: the best label, or a general one when unsure."""
    best = max(range(len(scores)), key=scores.__getitem__)
    score, guess = scores[best], rules.labels[best]
    label = rules.overwrite_map.get(guess, guess)
    if score >= rules.thresholds.get(guess, rules.medium_confidence_threshold):
        return Answer(label, score)
    return Answer("txt" if label in rules.text_labels else "unknown", score)


def infer(url: str, features: npt.NDArray[np.int32]) -> list[list[float]]:
    """Send features `[files, 2048]` as raw bytes in one request; return scores `[files, classes]`.

    Raises:
        RuntimeError: Nobody answers at that address, or the gateway refused; then the words are its own.
    """
    head = json.dumps(_request_head(features)).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
    try:
        connection.request("POST", "/v2/models/filetype/infer", head + features.tobytes(), headers)
        response = connection.getresponse()
        body = response.read()
    except OSError as error:
        raise RuntimeError(f"no answer from {url} ({error}); `make run` starts a gateway") from error
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise RuntimeError(f"the gateway answered {response.status}: {body.decode(errors='replace')}")
    return _scores(body, int(response.headers["Inference-Header-Content-Length"]))


def classify(paths: Sequence[Path], rules: Rules, url: str) -> list[Answer]:
    """Answer for every file, in order; all that need the network share one request."""
    found: list[Answer | npt.NDArray[np.int32]] = []
    for path in paths:
        with path.open("rb") as file:
            found.append(inspect(file, rules))
    rows = [item for item in found if not isinstance(item, Answer)]
    scores = iter(infer(url, np.stack(rows))) if rows else iter(())
    return [item if isinstance(item, Answer) else decide(next(scores), rules) for item in found]


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _features(begin: bytes, end: bytes, rules: Rules) -> npt.NDArray[np.int32]:
    features = np.full(rules.beg_size + rules.end_size, rules.padding_token, np.int32)
    head = np.frombuffer(begin[: rules.beg_size], np.uint8)
    tail = np.frombuffer(end[-rules.end_size :], np.uint8)
    features[: len(head)] = head
    features[len(features) - len(tail) :] = tail
    return features


def _request_head(features: npt.NDArray[np.int32]) -> dict[str, Any]:
    sent = {"binary_data_size": features.nbytes}
    tensor = {"name": "bytes", "datatype": "INT32", "shape": list(features.shape), "parameters": sent}
    return {"inputs": [tensor], "outputs": [{"name": "target_label", "parameters": {"binary_data": True}}]}


def _scores(body: bytes, head_size: int) -> list[list[float]]:
    (tensor,) = json.loads(body[:head_size])["outputs"]
    scores: list[list[float]] = np.frombuffer(body[head_size:], "<f4").reshape(tensor["shape"]).tolist()
    return scores


def main() -> None:
    """Classify the files named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the gateway's HTTP address")
    options = parser.parse_args()
    try:
        rules = Rules(**json.loads(_RULES.read_bytes()))
        answers = classify(options.files, rules, options.url)
    except (OSError, RuntimeError) as error:
        sys.exit(f"classify: {error}")
    for path, answer in zip(options.files, answers, strict=True):
        print(f"{path}: {answer.label} {answer.score:.4f}")


if __name__ == "__main__":
    main()
