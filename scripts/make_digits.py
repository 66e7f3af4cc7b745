"""Make the sample model `digits`: two versions of a classifier of scikit-learn's handwritten digits."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from onnx_mlp import Floats, Names, mlp
from wheels import write

_ROOT = Path(__file__).resolve().parent.parent
_SEED = 20
_BRIGHTEST = 16.0  # the data set's pixels run from 0 to 16
_SIDE = 8  # pixels; images are square

_CONFIG = """\
# Written by scripts/make_digits.py.
name: "digits"
platform: "onnxruntime_onnx"
max_batch_size: 64
input [ { name: "pixels" data_type: TYPE_FP32 dims: [ 64 ] } ]
output [ { name: "probabilities" data_type: TYPE_FP32 dims: [ 10 ] label_filename: "labels.txt" } ]
version_policy: { all { } }
dynamic_batching { }
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one version is trained.

    Attributes:
        hidden: Units per hidden layer.
        shifted: Also learn from every training image moved by one pixel in each direction.
        epochs: Passes over the training images.
    """

    hidden: tuple[int, ...]
    shifted: bool
    epochs: int


@dataclass(frozen=True, slots=True)
class Digits:
    """Images `[rows, 64]`, float32 from 0 to 16, and the digit each shows `[rows]`."""

    images: Floats
    targets: npt.NDArray[np.int64]


RECIPES = {1: Recipe((64,), shifted=False, epochs=30), 2: Recipe((128, 64), shifted=True, epochs=30)}


def load() -> tuple[Digits, Digits]:
    """Return three quarters of the data set to learn from and one quarter to judge by, always the same."""
    data = load_digits()
    parts = train_test_split(
        data.data.astype(np.float32), data.target, test_size=0.25, random_state=_SEED, stratify=data.target
    )
    return Digits(parts[0], parts[2]), Digits(parts[1], parts[3])


def train(recipe: Recipe, digits: Digits) -> MLPClassifier:
    """Fit a network on pixels scaled to 0..1; seeded, so the same machine makes the same weights."""
    data = _with_shifts(digits) if recipe.shifted else digits
    network = MLPClassifier(recipe.hidden, random_state=_SEED)
    # One partial_fit is one epoch; fit would warn that so few epochs have not converged.
    for _ in range(recipe.epochs):
        network.partial_fit(data.images / _BRIGHTEST, data.targets, classes=np.arange(10))
    return network


def layers(network: MLPClassifier) -> list[tuple[Floats, Floats]]:
    """Return a network's weights and biases for inputs from 0 to 16: the scaling is folded into the first."""
    weights = [coefficients.astype(np.float32) for coefficients in network.coefs_]
    weights[0] /= np.float32(_BRIGHTEST)
    return [(w, b.astype(np.float32)) for w, b in zip(weights, network.intercepts_, strict=True)]


def _with_shifts(digits: Digits) -> Digits:
    moves = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
    squares = digits.images.reshape(-1, _SIDE, _SIDE)
    padded = np.pad(squares, ((0, 0), (1, 1), (1, 1)))
    moved = [padded[:, 1 + y : 1 + y + _SIDE, 1 + x : 1 + x + _SIDE] for y, x in moves]
    images = np.concatenate(moved).reshape(-1, _SIDE * _SIDE)
    return Digits(images, np.tile(digits.targets, len(moves)))


def main() -> None:
    """Train every version and write the model's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=_ROOT / "models" / "digits")
    into = parser.parse_args().into
    learn, judge = load()
    write(into / "labels.txt", "".join(f"{digit}\n" for digit in range(10)).encode())
    for version, recipe in RECIPES.items():
        network = train(recipe, learn)
        model = mlp(Names("digits", "pixels", "probabilities"), layers(network), softmax=True)
        write(into / str(version) / "model.onnx", model.SerializeToString())
        accuracy = network.score(judge.images / _BRIGHTEST, judge.targets)
        print(f"digits version {version}: {accuracy:.1%} right on held-out images")
    write(into / "config.pbtxt", _CONFIG.encode())


if __name__ == "__main__":
    main()
