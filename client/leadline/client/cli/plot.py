"""`leadline plot`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from leadline.client import ConfusionMatrix, Model, Split, Sweep
from leadline.client._text import counted
from leadline.client.cli import describe
from leadline.client.cli.commands import Group
from leadline.client.cli.depth_lines import depth_lines
from leadline.client.cli.figures.files import figure_path, require_plot
from leadline.client.cli.options import Selector, Session, selector_options, session_options

if TYPE_CHECKING:
    from leadline.client.cli.figures.curves import Curve

_out_option = click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    callback=figure_path,
    help="The file to write: png, pdf or svg.",
)


@click.group(cls=Group)
def plot() -> None:
    """Draw accuracy curves, confusion matrices and sweeps."""


@plot.command(
    examples=(
        "leadline plot curves phgcrktpjf --out curves.png",
        "leadline plot curves $(leadline jobs --json | jq -r .name) --out curves.svg",
    )
)
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@_out_option
@session_options
def curves(session: Session, *, jobs: tuple[str, ...], out: Path) -> None:
    """Draw train and test accuracy per epoch of one JOB or several.

    A job that still trains is drawn as far as it is. Needs 'leadline[plot]'. With --json the
    models that were drawn are printed.
    """
    require_plot()
    with session.client() as client:
        models = [client.get_model(job.removeprefix("jobs/")) for job in jobs]
    write_curves(models, out)
    if session.output.as_json:
        for model in models:
            session.output.message(model)
    session.output.text(f"wrote {out}")


@plot.command(
    examples=(
        "leadline plot confusion --model models/phgcrktpjf --out confusion.png",
        "leadline plot confusion --model phgcrktpjf/epochs/3 --split train --out confusion.svg",
    )
)
@selector_options
@click.option(
    "--split",
    type=click.Choice(["test", "train"]),
    default="test",
    show_default=True,
    help="Of which images.",
)
@_out_option
@session_options
def confusion(session: Session, *, selector: Selector, split: str, out: Path) -> None:
    """Draw a model's confusion matrix, and how far its probabilities hold.

    Needs 'leadline[plot]'. With --json the ConfusionMatrix that was drawn is printed.
    """
    require_plot()
    with session.client() as client:
        matrix = client.confusion_matrix(split=split, **selector)
    write_confusion(matrix, out)
    if session.output.as_json:
        session.output.message(matrix)
    session.output.text(f"wrote {out}")


@plot.command(
    examples=(
        "leadline plot sweep sweeps/phgcrktpjf --out sweep.png",
        "leadline plot sweep $(leadline sweeps --json | head -1 | jq -r .name) --out sweep.svg",
    )
)
@click.argument("sweep")
@_out_option
@session_options
def sweep(session: Session, *, sweep: str, out: Path) -> None:
    """Draw test accuracy against depth, as the jobs of a SWEEP came to it.

    There is a line for each combination of the other axes, such as with and without batch norm,
    and around it a band from the lowest to the highest seed. A sweep that still trains is drawn
    as far as it is. Needs 'leadline[plot]'. With --json the Sweep that was drawn is printed.
    """
    require_plot()
    with session.client() as client:
        found = client.get_sweep(sweep)
    write_sweep(found, out)
    if session.output.as_json:
        session.output.message(found)
    session.output.text(f"wrote {out}")


def write_sweep(sweep: Sweep, out: Path) -> None:
    """Writes a sweep's accuracies against depth as a picture.

    Raises:
        click.ClickException: there is nothing to draw.
    """
    lines = depth_lines(sweep)
    from leadline.client.cli.figures.sweep import draw_sweep  # noqa: PLC0415 - needs matplotlib

    draw_sweep(lines, out, title=sweep_title(sweep))


def sweep_title(sweep: Sweep) -> str:
    """What a picture of a sweep shows."""
    axes = {axis.field for axis in sweep.axes}
    title = "Best test accuracy"
    if "epochs" not in axes:
        title += f" within {counted(sweep.spec.epochs, 'epoch')}"
    return title if "dataset" in axes else f"{title} on {sweep.spec.dataset}"


def write_confusion(matrix: ConfusionMatrix, out: Path) -> None:
    """Writes a confusion matrix as a picture."""
    from leadline.client.cli.figures.confusion import (  # noqa: PLC0415 - needs matplotlib
        draw_confusion,
    )

    images = "training" if matrix.split == Split.SPLIT_TRAIN else "test"
    title = (
        f"{matrix.model}: {describe.percent(matrix.accuracy)} of {matrix.images:,} {images} "
        "images right"
    )
    draw_confusion(matrix, out, title=title)


def write_curves(models: list[Model], out: Path) -> None:
    """Writes the curves of models."""
    from leadline.client.cli.figures.curves import draw_curves  # noqa: PLC0415

    draw_curves(model_curves(models), out, title=curves_title(models))


def model_curves(models: list[Model]) -> "list[Curve]":
    """The accuracies of models, epoch by epoch."""
    from leadline.client.cli.figures.curves import Curve  # noqa: PLC0415 - needs matplotlib

    labels = [describe.network(model.variant) for model in models]
    return [
        Curve(
            # Runs of one variant differ only in their names.
            label if labels.count(label) == 1 else f"{label}, {model.job}",
            [epoch.epoch for epoch in model.epochs],
            [100 * epoch.train_accuracy for epoch in model.epochs],
            [100 * epoch.test_accuracy for epoch in model.epochs],
        )
        for label, model in zip(labels, models, strict=True)
    ]


def curves_title(models: list[Model]) -> str:
    """What a picture of curves shows."""
    return f"Accuracy on {', '.join(sorted({model.variant.dataset for model in models}))}"
