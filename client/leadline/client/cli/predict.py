"""`leadline predict`."""

import stat
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import click

from leadline.client import Client, ImageFailure, InvalidArgumentError, Prediction, Predictions
from leadline.client._image_errors import renamed
from leadline.client._text import counted
from leadline.client.cli.commands import checked, command
from leadline.client.cli.exit_codes import ExitCode
from leadline.client.cli.files import appearing
from leadline.client.cli.image_files import ImageFiles, image_paths
from leadline.client.cli.options import (
    Selector,
    Session,
    selector_options,
    session_options,
)
from leadline.client.cli.prediction_formats import Csv, JsonLines, Table, Writer
from leadline.client.cli.prediction_progress import Progress, make_progress
from leadline.client.cli.views import Outage
from leadline.v1.inference_service_pb2 import PredictResponse

_FORMATS = {".csv": "csv", ".jsonl": "jsonl"}


def _out_path(path: Path) -> Path:
    """Checks that a file can be created at a path."""
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise click.BadParameter(
            f"{path} is not a regular file: give another one, or leave out --out"
        )
    return path


@command(
    "leadline predict cat.png dog.jpg --model models/phgcrktpjf",
    "leadline predict photos/ --dataset cifar10 --blocks 10 --batch-norm --top-k 3",
    "leadline predict photos/ --model models/phgcrktpjf --out photos.csv",
    "leadline predict photos/ --model models/phgcrktpjf --format jsonl --logits | head",
    "leadline predict cat.png --model models/phgcrktpjf/epochs/2 --json",
)
@click.argument(
    "images",
    nargs=-1,
    required=True,
    metavar="IMAGE|FOLDER...",
    type=click.Path(exists=True, readable=False, path_type=Path),
    callback=checked(image_paths),
)
@selector_options
@click.option("--top-k", type=int, default=1, show_default=True, help="Classes per image.")
@click.option("--logits", is_flag=True, help="Write each image's logits as well.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "jsonl"]),
    help="A table for people, or for each image a CSV row or JSON line.  "
    "[default: table; for --out by the file's name]",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=checked(_out_path),
    help="Write to this file, which appears when it is complete.",
)
@session_options
def predict(
    session: Session,
    *,
    images: Sequence[Path],
    selector: Selector,
    top_k: int,
    logits: bool,
    form: str | None,
    out: Path | None,
) -> ExitCode:
    """Classify any number of images.

    An IMAGE is a PNG or JPEG file; a FOLDER stands for all images in and below it, in the order of
    their paths. If some images cannot be classified, they are reported by name, and the exit code
    is 1. --json prints one PredictResponse for all images, or none on an error.
    """
    if session.output.as_json:
        if form or out:
            raise click.UsageError("--json prints one message: for a file, use --format jsonl")
        _predict_at_once(session, images, selector, top_k=top_k, logits=logits)
        return ExitCode.SUCCESS
    form = _format(form, out, logits=logits)
    progress = make_progress(
        lambda: sum(1 for _ in ImageFiles(images)),
        shares_terminal=out is None and form != "table",
    )
    with session.client() as client:
        run = _Run(images, progress)
        with _writer(session, form, out) as writer:
            with progress:
                run.score(client, writer, selector, top_k=top_k, logits=logits)
            writer.close()
    run.sum_up(session, out)
    return ExitCode.FAILED if run.failures else ExitCode.SUCCESS


def show_predictions(session: Session, names: Sequence[str], predictions: Predictions) -> None:
    """Prints a table of predictions."""
    table = Table(session.output)
    for name, prediction in zip(names, predictions, strict=True):
        table.write(name, prediction, predictions.model)
    table.close()


class _Run:
    """A run of predictions and its results."""

    def __init__(self, paths: Sequence[Path], progress: Progress) -> None:
        self.failures = 0
        self._files = ImageFiles(paths, on_unreadable=self._fail)
        self._progress = progress
        self._outage = Outage(progress.note)
        self._names: deque[Path] = deque()
        self._predicted = 0
        self._model = ""

    def score(
        self, client: Client, writer: Writer, selector: Selector, *, top_k: int, logits: bool
    ) -> None:
        """Classifies every image and writes the results."""
        stream = client.predict_stream(
            self._named(),
            top_k=top_k,
            include_logits=logits,
            on_reconnect=self._outage.begin,
            **selector,
        )
        with closing(stream):
            for result in stream:
                self._take(result)
                writer.write(str(self._names.popleft()), result, stream.model)
        self._model = stream.model

    def sum_up(self, session: Session, out: Path | None) -> None:
        """Prints how many images were classified, skipped or failed."""
        if out is not None:
            by = f" by {self._model}" if self._model else ""
            session.output.text(f"wrote {out}: {counted(self._predicted, 'prediction')}{by}")
        if self._files.skipped:
            skipped = counted(self._files.skipped, "file")
            session.output.note(f"skipped {skipped} not named .png or .jpg")
        if self.failures:
            session.output.note(f"{counted(self.failures, 'failure')}, see above")

    def _named(self) -> Iterator[Path]:
        for path in self._files:
            self._names.append(path)
            yield path

    def _take(self, result: Prediction | ImageFailure) -> None:
        self._outage.end()
        self._progress.advance()
        if isinstance(result, ImageFailure):
            self._fail(self._names[0], result)
        else:
            self._predicted += 1

    def _fail(self, path: Path, why: ImageFailure | OSError) -> None:
        self.failures += 1
        text = (isinstance(why, OSError) and why.strerror) or str(why)
        self._progress.note(f"{click.format_filename(path)}: {text}")


def _format(form: str | None, out: Path | None, *, logits: bool) -> str:
    if form is None:
        form = "table" if out is None else _FORMATS.get(out.suffix.lower())
    if form is None:
        raise click.UsageError(f"{out} ends with neither .csv nor .jsonl: choose one with --format")
    if form == "table" and out is not None:
        raise click.UsageError("a table is for the screen: for --out, use --format csv or jsonl")
    if form == "table" and logits:
        raise click.UsageError("a table has no room for logits: use --format csv or jsonl")
    return form


@contextmanager
def _writer(session: Session, form: str, out: Path | None) -> Iterator[Writer]:
    if form == "table":
        yield Table(session.output)
        return
    make = Csv if form == "csv" else JsonLines
    if out is None:
        yield make(sys.stdout)
        return
    with appearing(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield make(file)


def print_response(session: Session, predictions: Predictions) -> None:
    """Prints predictions as one PredictResponse."""
    session.output.message(
        PredictResponse(
            predictions=predictions,
            model=predictions.model,
            weights_sha256=predictions.weights_sha256,
        )
    )


def _predict_at_once(
    session: Session, images: Sequence[Path], selector: Selector, *, top_k: int, logits: bool
) -> None:
    paths = list(ImageFiles(images, on_unreadable=_raise))
    with session.client() as client:
        try:
            predictions = client.predict(paths, top_k=top_k, include_logits=logits, **selector)
        except InvalidArgumentError as error:
            raise renamed(error, lambda index: str(paths[index])) from None
    print_response(session, predictions)


def _raise(_folder: Path, error: OSError) -> None:
    raise error
