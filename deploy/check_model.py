"""Compares the listing and the predictions of a server's only model, with the command line.

The test of the image runs it with the image's Python. It lists every misclassified test image, and
predicts the images with the same model. The predicted classes must be the same, and their number
must match the accuracy.
"""

# ruff: noqa: INP001, S603, S607 - a script, for a machine of its own

import base64
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def leadline(*arguments: str) -> list[dict[str, Any]]:
    """Returns the messages that a command prints with --json."""
    result = subprocess.run(
        ["leadline", *arguments, "--json"], check=True, stdout=subprocess.PIPE, text=True
    )
    return [json.loads(line) for line in result.stdout.splitlines()]


def main() -> None:
    """Compares the listing and the predictions, and raises AssertionError if they differ."""
    (model,) = leadline("models")
    pages = leadline("misclassified", "--model", model["name"])
    examples = sorted(
        (example for page in pages for example in page.get("examples", [])),
        key=lambda example: example["index"],
    )
    wrong_by_accuracy = round(pages[0]["test_images"] * (1 - pages[0]["test_accuracy"]))
    assert len(examples) == wrong_by_accuracy, (len(examples), wrong_by_accuracy)  # noqa: S101

    with tempfile.TemporaryDirectory() as folder:
        for example in examples:
            image = Path(folder, f"{example['index']:05}.png")
            image.write_bytes(base64.b64decode(example["png"]))
        (response,) = leadline("predict", folder, "--model", model["name"])
    predicted = [prediction["class_index"] for prediction in response["predictions"]]
    listed = [example["predicted_class_index"] for example in examples]
    assert predicted == listed  # noqa: S101

    sys.stdout.write(
        f"{model['name']}: accuracy {pages[0]['test_accuracy']:.2%} of {pages[0]['test_images']}, "
        f"{len(examples)} wrong images listed and predicted alike\n"
    )


if __name__ == "__main__":
    main()
