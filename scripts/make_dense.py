"""Make the load tests' model `dense`: a 512-2048-2048-512 network with random weights."""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np

from onnx_mlp import Floats, Names, mlp
from wheels import write

_ROOT = Path(__file__).resolve().parent.parent
_WIDTHS = (512, 2048, 2048, 512)
_SEED = 7


def layers(widths: tuple[int, ...], seed: int) -> list[tuple[Floats, Floats]]:
    """Draw weights whose outputs keep their inputs' scale (He et al. 2015, for Relu); biases are zero."""
    random = np.random.default_rng(seed)
    return [_layer(random, fan_in, fan_out) for fan_in, fan_out in pairwise(widths)]


def _layer(random: np.random.Generator, fan_in: int, fan_out: int) -> tuple[Floats, Floats]:
    weight = random.standard_normal((fan_in, fan_out), np.float32) * np.float32((2.0 / fan_in) ** 0.5)
    return weight, np.zeros(fan_out, np.float32)


def main() -> None:
    """Write the model's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=_ROOT / "models" / "dense")
    into = parser.parse_args().into
    model = mlp(Names("dense", "input", "output"), layers(_WIDTHS, _SEED), softmax=False)
    write(into / "1" / "model.onnx", model.SerializeToString())
    print(f"dense: {into}")


if __name__ == "__main__":
    main()
