"""`leadline plot`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from leadline.client import (
    Client,
    ConfusionMatrix,
    ListMisclassifiedResponse,
    Model,
    Split,
    Sweep,
)
from leadline.client._messages import enum_name
from leadline.client._text import counted
from leadline.client.cli import describe, describe_sweep
from leadline.client.cli.commands import Group
from leadline.client.cli.depth_lines import depth_lines
from leadline.client.cli.figures.files import FIGURE_SUFFIXES, require_plot, save
from leadline.client.cli.files import out_option
from leadline.client.cli.options import (
    Selector,
    Session,
    selector_options,
    session_options,
    split_option,
)

if TYPE_CHECKING:
    from leadline.client.cli.figures.curves import Curve

_out_option = out_option(*FIGURE_SUFFIXES, text="The file to write: png, pdf or svg.")


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
    """Draw train and test accuracy per epoch of one or more JOBs.

    A running job is drawn up to its latest epoch. Needs the extra `plot`. --json prints the drawn
    models.
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
@split_option
@_out_option
@session_options
def confusion(session: Session, *, selector: Selector, split: str, out: Path) -> None:
    """Draw a model's confusion matrix, and how well calibrated its probabilities are.

    Needs the extra `plot`. --json prints the drawn ConfusionMatrix.
    """
    require_plot()
    with session.client() as client:
        matrix = client.confusion_matrix(split=split, **selector)
        model = _model_of(client, matrix.model)
    write_confusion(matrix, model, out)
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
    """Draw the best test accuracy of a SWEEP's jobs over depth.

    There is a line for each combination of the other axes, such as with and without batch norm. A
    band around it shows the lowest and the highest seed. A running sweep is drawn up to its latest
    epochs. Needs the extra `plot`. --json prints the drawn Sweep.
    """
    require_plot()
    with session.client() as client:
        drawn = client.get_sweep(sweep)
    write_sweep(drawn, out)
    if session.output.as_json:
        session.output.message(drawn)
    session.output.text(f"wrote {out}")


def write_sweep(sweep: Sweep, out: Path) -> None:
    """Writes a sweep's accuracies over depth as a picture; raises the errors of `depth_lines`."""
    lines = depth_lines(sweep)
    from leadline.client.cli.figures.sweep import sweep_figure  # noqa: PLC0415 - needs matplotlib

    save(sweep_figure(lines, title=sweep_title(sweep)), out)


def sweep_title(sweep: Sweep) -> str:
    """The title of a picture of a sweep."""
    axes = {axis.field for axis in sweep.axes}
    title = "Best test accuracy by depth"
    if "epochs" not in axes:
        title += f", within {counted(sweep.spec.epochs, 'epoch')}"
    return title if "dataset" in axes else f"{title}, on {sweep.spec.dataset}"


def write_confusion(matrix: ConfusionMatrix, model: Model, out: Path) -> None:
    """Writes a confusion matrix of `model` as a picture."""
    from leadline.client.cli.figures.confusion import (  # noqa: PLC0415 - needs matplotlib
        confusion_figure,
    )

    count = counts_title(matrix.accuracy, matrix.images, matrix.split)
    save(confusion_figure(matrix, title=f"{epoch_title(model, matrix.model)}\n{count}"), out)


def write_grid(
    client: Client,
    pages: list[ListMisclassifiedResponse],
    out: Path,
    *,
    grouping: str,
    per_class: int,
) -> None:
    """Writes the examples of a listing as a picture grid, with a row for each class."""
    from leadline.client.cli.figures.grid import grid_figure  # noqa: PLC0415 - needs matplotlib

    first = pages[0]
    count = counts_title(first.split_accuracy, first.split_images, first.split)
    figure = grid_figure(
        [example for page in pages for example in page.examples],
        [row.class_name for row in first.class_counts],
        by_true_class=grouping == "true_class",
        per_class=per_class,
        title=f"{epoch_title(_model_of(client, first.model), first.model)}\n{count}",
    )
    save(figure, out)


def write_curves(models: list[Model], out: Path) -> None:
    """Writes the accuracy curves of models as a picture."""
    from leadline.client.cli.figures.curves import curves_figure  # noqa: PLC0415

    save(curves_figure(model_curves(models), title=curves_title(models)), out)


def model_curves(models: list[Model]) -> "list[Curve]":
    """The accuracies of models, epoch by epoch, with unique labels."""
    from leadline.client.cli.figures.curves import Curve  # noqa: PLC0415 - needs matplotlib

    return [
        Curve(
            label,
            model.variant.batch_norm,
            [epoch.epoch for epoch in model.epochs],
            [100 * epoch.train_accuracy for epoch in model.epochs],
            [100 * epoch.test_accuracy for epoch in model.epochs],
        )
        for label, model in zip(_labels(models), models, strict=True)
    ]


def _labels(models: list[Model]) -> list[str]:
    """Unique labels: the network, if needed the dataset, fields of the spec, and the job."""
    is_same_dataset = len(_datasets(models)) == 1
    labels = [
        describe.network(model.variant) if is_same_dataset else _network_on_dataset(model, models)
        for model in models
    ]
    peers = [
        [other for other, its_label in zip(models, labels, strict=True) if its_label == label]
        for label in labels
    ]
    labels = [
        ", ".join([label, *_differences(model, others)])
        for label, model, others in zip(labels, models, peers, strict=True)
    ]
    return [
        label if labels.count(label) == 1 else f"{label}, {model.job}"
        for label, model in zip(labels, models, strict=True)
    ]


def _differences(model: Model, others: list[Model]) -> list[str]:
    """The fields in which the specs of `others` differ, with the values of `model`: "seed 1"."""
    parts = []
    for field in model.spec.DESCRIPTOR.fields:
        if len({getattr(other.spec, field.name) for other in others}) > 1:
            value = getattr(model.spec, field.name)
            if field.enum_type is not None:
                value = enum_name(model.spec, field.name)
            parts.append(f"{field.name.replace('_', ' ')} {describe_sweep.plain(value)}")
    return parts


def curves_title(models: list[Model]) -> str:
    """The title of a picture of curves."""
    if len(models) == 1:
        return f"{_network_on_dataset(models[0], models)}: accuracy by epoch\n{models[0].job}"
    return f"Accuracy by epoch on {', '.join(_datasets(models))}"


def epoch_title(model: Model, name: str) -> str:
    """The network, dataset and epoch of "models/{id}/epochs/{epoch}" in words."""
    epoch = name.rpartition("/")[2]
    return f"{describe.network(model.variant)} on {model.variant.dataset}, epoch {epoch}\n{name}"


def counts_title(accuracy: float, images: int, split: Split.ValueType) -> str:
    """The result of a split: "90.00 % of 200 test images correct"."""
    return f"{describe.percent(accuracy)} of {describe.images_of(split, images)} correct"


def _network_on_dataset(model: Model, models: list[Model]) -> str:
    return f"{describe.network(model.variant)} on {_dataset(model, models)}"


def _datasets(models: list[Model]) -> list[str]:
    """The datasets of models, each once."""
    return sorted({_dataset(model, models) for model in models})


def _dataset(model: Model, models: list[Model]) -> str:
    """A dataset's name, with its fingerprint if several datasets had the name."""
    name = model.variant.dataset
    contents = {other.dataset_fingerprint for other in models if other.variant.dataset == name}
    return name if len(contents) == 1 else f"{name} ({model.dataset_fingerprint[:8]})"


def _model_of(client: Client, epoch: str) -> Model:
    return client.get_model(epoch.partition("/epochs/")[0])
