"""`leadline predict`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click

from leadline.client import InvalidArgumentError, Prediction, Predictions, Violation
from leadline.client._image_errors import image_index
from leadline.client.cli import describe
from leadline.client.cli.commands import Command
from leadline.client.cli.options import (
    Selector,
    Session,
    selector_options,
    session_options,
)
from leadline.v1.inference_service_pb2 import PredictResponse

_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})


@click.command(
    cls=Command,
    examples=(
        "leadline predict cat.png dog.jpg --model models/phgcrktpjf",
        "leadline predict photos/ --dataset cifar10 --blocks 10 --batch-norm --top-k 3",
        "leadline predict cat.png --model models/phgcrktpjf/epochs/2 --json",
    ),
)
@click.argument(
    "images",
    nargs=-1,
    required=True,
    metavar="IMAGE|FOLDER...",
    type=click.Path(exists=True, path_type=Path),
)
@selector_options
@click.option("--top-k", type=int, default=1, show_default=True, help="Classes to name an image.")
@session_options
def predict(session: Session, *, images: Sequence[Path], selector: Selector, top_k: int) -> None:
    """Say what images show.

    An IMAGE is a PNG or JPEG file; of a FOLDER, all that are in it and below, in the order of
    their paths. With --json one PredictResponse is printed, its predictions in that order.
    """
    paths = [path for image in images for path in _images_in(image)]
    with session.client() as client:
        try:
            predictions = client.predict(paths, top_k=top_k, **selector)
        except InvalidArgumentError as error:
            raise _with_paths(error, paths) from None
    if session.output.as_json:
        session.output.message(
            PredictResponse(
                predictions=predictions,
                model=predictions.model,
                weights_sha256=predictions.weights_sha256,
            )
        )
    else:
        show_predictions(session, [str(path) for path in paths], predictions)


def show_predictions(session: Session, names: Sequence[str], predictions: Predictions) -> None:
    """Prints a table of predictions."""
    session.output.table(
        ("image", "class", "#probability", "then"),
        [_row(name, one) for name, one in zip(names, predictions, strict=True)],
    )
    session.output.text(f"by {predictions.model}")


def _row(name: str, prediction: Prediction) -> list[str]:
    others = ", ".join(
        f"{score.class_name} {describe.percent(score.probability)}"
        for score in prediction.top_k[1:]
    )
    return [name, prediction.class_name, describe.percent(prediction.probability), others]


def _images_in(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    found = sorted(
        inner for inner in path.rglob("*") if inner.suffix.lower() in _SUFFIXES and inner.is_file()
    )
    if not found:
        raise click.UsageError(f"there is no PNG or JPEG file in {path}")
    yield from found


def _with_paths(error: InvalidArgumentError, paths: Sequence[Path]) -> InvalidArgumentError:
    """The error with the files' names in the place of their numbers."""
    violations = tuple(_with_path(violation, paths) for violation in error.violations)
    return InvalidArgumentError(error.message, replace(error.details, violations=violations))


def _with_path(violation: Violation, paths: Sequence[Path]) -> Violation:
    index = image_index(violation)
    if index is None or index >= len(paths):
        return violation
    return violation._replace(field=str(paths[index]))
