"""`leadline confusion`."""

from collections.abc import Sequence

from leadline.client import ClassMetrics, ConfusionMatrix
from leadline.client.cli import describe
from leadline.client.cli.commands import command
from leadline.client.cli.options import (
    Selector,
    Session,
    selector_options,
    session_options,
    split_option,
)

# A wider matrix does not fit a terminal; --json prints it.
_MOST_COLUMNS = 20


@command(
    "leadline confusion --model models/phgcrktpjf",
    "leadline confusion --model models/phgcrktpjf/epochs/3 --split train",
    "leadline confusion --dataset cifar10 --blocks 2 --json | jq .calibration",
)
@selector_options
@split_option
@session_options
def confusion(session: Session, *, selector: Selector, split: str) -> None:
    """Show which classes a model confuses: true classes in rows, predicted classes in columns.

    Precision is the fraction of the images predicted as a class that belong to it. Recall is the
    fraction of a class's images that are predicted as it. --json prints the whole
    ConfusionMatrix, including the bins of its calibration.
    """
    with session.client() as client:
        matrix = client.confusion_matrix(split=split, **selector)
    if session.output.as_json:
        session.output.message(matrix)
        return
    if len(matrix.classes) <= _MOST_COLUMNS:
        _show_matrix(session, matrix)
    session.output.table(*metrics_table(matrix))
    session.output.text(summary(matrix))


def summary(matrix: ConfusionMatrix) -> str:
    """The results of the whole split, in words."""
    error = matrix.calibration.expected_calibration_error
    return (
        f"{matrix.model}: {describe.percent(matrix.accuracy)} of "
        f"{describe.images_of(matrix.split, matrix.images)} right, "
        f"expected calibration error {describe.percent(error)}"
    )


def _show_matrix(session: Session, matrix: ConfusionMatrix) -> None:
    names = [metrics.class_name for metrics in matrix.classes]
    session.output.table(
        ("true, predicted", *(f"#{name}" for name in names)),
        [
            [name, *(str(count) if count else "·" for count in row.counts)]
            for name, row in zip(names, matrix.rows, strict=True)
        ],
    )


def metrics_table(matrix: ConfusionMatrix) -> tuple[Sequence[str], list[list[str]]]:
    """The headings and rows of a table of precision, recall and F1."""
    headings = ("class", "#images", "#predicted", "#precision", "#recall", "#F1")
    return headings, [_metrics_row(metrics) for metrics in matrix.classes]


def _metrics_row(metrics: ClassMetrics) -> list[str]:
    fractions = [
        describe.percent(getattr(metrics, field)) if metrics.HasField(field) else "-"
        for field in ("precision", "recall", "f1")
    ]
    return [metrics.class_name, str(metrics.support), str(metrics.predicted), *fractions]
