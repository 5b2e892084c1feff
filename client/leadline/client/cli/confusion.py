"""`leadline confusion`."""

import click

from leadline.client import ClassMetrics, ConfusionMatrix, Split
from leadline.client.cli import describe
from leadline.client.cli.commands import Command
from leadline.client.cli.options import Selector, Session, selector_options, session_options

# A wider matrix fits no terminal; --json has it.
_MOST_COLUMNS = 20


@click.command(
    cls=Command,
    examples=(
        "leadline confusion --model models/phgcrktpjf",
        "leadline confusion --model models/phgcrktpjf/epochs/3 --split train",
        "leadline confusion --dataset cifar10 --blocks 2 --json | jq .calibration",
    ),
)
@selector_options
@click.option(
    "--split",
    type=click.Choice(["test", "train"]),
    default="test",
    show_default=True,
    help="Of which images.",
)
@session_options
def confusion(session: Session, *, selector: Selector, split: str) -> None:
    """Show which classes a model takes for which.

    A row is a class, a column what its images are taken for. Precision is the fraction of the
    images taken for a class that is of it, recall that of its images that is taken for it. With
    --json the whole ConfusionMatrix is printed, the bins of its calibration included.
    """
    with session.client() as client:
        matrix = client.confusion_matrix(split=split, **selector)
    if session.output.as_json:
        session.output.message(matrix)
        return
    if len(matrix.classes) <= _MOST_COLUMNS:
        _show_matrix(session, matrix)
    session.output.table(
        ("class", "#images", "#taken for it", "#precision", "#recall", "#F1"),
        [metrics_row(one) for one in matrix.classes],
    )
    session.output.text(summary(matrix))


def summary(matrix: ConfusionMatrix) -> str:
    """What the whole split came to."""
    images = "training" if matrix.split == Split.SPLIT_TRAIN else "test"
    error = matrix.calibration.expected_calibration_error
    return (
        f"{matrix.model}: {describe.percent(matrix.accuracy)} of {matrix.images:,} {images} images "
        f"right, expected calibration error {describe.percent(error)}"
    )


def _show_matrix(session: Session, matrix: ConfusionMatrix) -> None:
    names = [one.class_name for one in matrix.classes]
    session.output.table(
        ("is, taken for", *(f"#{name}" for name in names)),
        [
            [name, *(str(count) if count else "·" for count in row.counts)]
            for name, row in zip(names, matrix.rows, strict=True)
        ],
    )


def metrics_row(one: ClassMetrics) -> list[str]:
    """The row of a class in a table of precision, recall and F1."""
    metrics = [
        describe.percent(getattr(one, field)) if one.HasField(field) else "-"
        for field in ("precision", "recall", "f1")
    ]
    return [one.class_name, str(one.support), str(one.predicted), *metrics]
