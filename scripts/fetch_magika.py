"""Make the sample model `filetype`: the network, labels and decision rules that the magika wheel ships."""

import argparse
import json
from pathlib import Path
from typing import Any

from wheels import downloaded, read_member, write

_ROOT = Path(__file__).resolve().parent.parent
_REQUIREMENTS = _ROOT / "requirements" / "filetype.txt"

_CONFIG = """\
# Written by scripts/fetch_magika.py.
name: "filetype"
platform: "onnxruntime_onnx"
max_batch_size: 64
input [ {{ name: "bytes" data_type: TYPE_INT32 dims: [ {features} ] }} ]
output [ {{ name: "target_label" data_type: TYPE_FP32 dims: [ {labels} ] label_filename: "labels.txt" }} ]
dynamic_batching {{ }}
"""


def rules(config: dict[str, Any], content_types: dict[str, Any]) -> dict[str, Any]:
    """Keep of magika's two files what `examples/classify.py` needs to reach magika's own answer.

    Args:
        config: The model's `config.min.json`.
        content_types: `content_types_kb.min.json`: what is known of each label.

    Returns:
        Window sizes in bytes, the padding token, labels in class order, score thresholds, the overwrite map
        and the labels that stand for text.

    Raises:
        ValueError: The model wants features from the middle or at offsets, which magika itself cannot make.
    """
    if config["mid_size"] or config["use_inputs_at_offsets"]:
        raise ValueError("this magika model wants more than the beginning and end of a file")
    windows = ("beg_size", "end_size", "block_size", "padding_token", "min_file_size_for_dl")
    kept = {key: config[key] for key in windows}
    kept |= {key: config[key] for key in ("medium_confidence_threshold", "thresholds", "overwrite_map")}
    kept["labels"] = config["target_labels_space"]
    kept["text_labels"] = sorted(label for label, known in content_types.items() if known["is_text"])
    return kept


def write_model(wheels: list[Path], into: Path) -> None:
    """Write `1/model.onnx`, `config.pbtxt`, `labels.txt` and `rules.json` under a model's folder."""
    kept = rules(
        json.loads(read_member(wheels, "/config.min.json")),
        json.loads(read_member(wheels, "/content_types_kb.min.json")),
    )
    labels = kept["labels"]
    config = _CONFIG.format(features=kept["beg_size"] + kept["end_size"], labels=len(labels))
    write(into / "1" / "model.onnx", read_member(wheels, "/model.onnx"))
    write(into / "labels.txt", "".join(f"{label}\n" for label in labels).encode())
    write(into / "rules.json", json.dumps(kept, indent=1).encode())
    write(into / "config.pbtxt", config.encode())


def main() -> None:
    """Download the pinned wheel and write the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=_ROOT / "models" / "filetype")
    into = parser.parse_args().into
    with downloaded(_REQUIREMENTS) as wheels:
        write_model(wheels, into)
    print(f"filetype: {into}")


if __name__ == "__main__":
    main()
