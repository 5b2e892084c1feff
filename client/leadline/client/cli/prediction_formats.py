"""Writes predictions as CSV, as JSON lines, or as a table."""

import csv
import json
from abc import abstractmethod
from typing import Any, TextIO

from leadline.client import ImageFailure, Prediction
from leadline.client.cli import describe
from leadline.client.cli.output import Output, json_values


class Writer:
    """Writes the result of each image, in order."""

    @abstractmethod
    def write(self, name: str, result: Prediction | ImageFailure, model: str) -> None:
        """Writes the result of an image, and the checkpoint that predicted."""

    def close(self) -> None:
        """Writes the remaining output."""


class JsonLines(Writer):
    """A JSON object per line: the image, and its `Prediction` or its error."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, name: str, result: Prediction | ImageFailure, model: str) -> None:
        """Writes a line."""
        values: dict[str, Any] = {"image": name}
        if isinstance(result, ImageFailure):
            values["error"] = str(result)
        else:
            values |= _values(result) | {"model": model}
        self._file.write(json.dumps(values) + "\n")


class Csv(Writer):
    """A row per image, below a heading.

    The first prediction determines the number of columns, so earlier failures wait
    for it.
    """

    def __init__(self, file: TextIO) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self._waiting: list[tuple[str, ImageFailure]] = []
        self._classes = 0
        self._logits = 0

    def write(self, name: str, result: Prediction | ImageFailure, model: str) -> None:
        """Writes a row."""
        if isinstance(result, Prediction):
            if not self._classes:
                self._begin(len(result.top_k), len(result.logits))
            self._write_prediction(name, result, model)
        elif self._classes:
            self._write_failure(name, result)
        else:
            self._waiting.append((name, result))

    def close(self) -> None:
        """Writes the heading and the failures if there was no prediction."""
        if not self._classes:
            self._begin(1, 0)

    def _begin(self, classes: int, logits: int) -> None:
        self._classes, self._logits = classes, logits
        more = [
            f"{column}_{k}" for k in range(2, classes + 1) for column in ("class", "probability")
        ]
        self._writer.writerow(
            [
                *("image", "class", "probability"),
                *more,
                *(f"logit_{index}" for index in range(logits)),
                *("model", "error"),
            ]
        )
        for name, failure in self._waiting:
            self._write_failure(name, failure)
        self._waiting.clear()

    def _write_prediction(self, name: str, prediction: Prediction, model: str) -> None:
        scores = [
            value for score in prediction.top_k for value in (score.class_name, score.probability)
        ]
        # The fewest digits that identify a 32-bit float.
        logits = [f"{logit:.9g}" for logit in prediction.logits]
        self._writer.writerow([_printable(name), *scores, *logits, model, ""])

    def _write_failure(self, name: str, failure: ImageFailure) -> None:
        empty = [""] * (2 * self._classes + self._logits + 1)
        self._writer.writerow([_printable(name), *empty, failure])


class Table(Writer):
    """A table, printed at the end."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._rows: list[list[str]] = []
        self._model = ""

    def write(self, name: str, result: Prediction | ImageFailure, model: str) -> None:
        """Adds a row; failures are reported separately."""
        if isinstance(result, Prediction):
            self._rows.append(_row(_printable(name), result))
            self._model = model

    def close(self) -> None:
        """Prints the table."""
        if self._rows:
            self._output.table(("image", "class", "#probability", "then"), self._rows)
            self._output.text(f"by {self._model}")


def _values(prediction: Prediction) -> dict[str, Any]:
    """A prediction as a dict of its proto field names; logits only if there are any."""
    values = json_values(prediction)
    if not prediction.logits:
        del values["logits"]
    return values


def _row(name: str, prediction: Prediction) -> list[str]:
    others = ", ".join(
        f"{score.class_name} {describe.percent(score.probability)}"
        for score in prediction.top_k[1:]
    )
    return [name, prediction.class_name, describe.percent(prediction.probability), others]


def _printable(name: str) -> str:
    """The name, printable even if its bytes are not UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="replace")
