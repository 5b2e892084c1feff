"""`leadline demo`: demonstrates the service."""

import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from leadline.client import Client, ListMisclassifiedResponse, TrainingJob
from leadline.client._config import Setting, Settings
from leadline.client.cli.commands import checked, command
from leadline.client.cli.demo_server import running_server
from leadline.client.cli.exit_codes import ExitCode
from leadline.client.cli.figures.files import can_plot
from leadline.client.cli.following import show_events
from leadline.client.cli.misclassified import list_pages, show_table
from leadline.client.cli.options import Session
from leadline.client.cli.output import Output
from leadline.client.cli.plot import write_curves, write_grid
from leadline.client.cli.predict import print_response, show_predictions
from leadline.client.cli.views import make_view

_PREDICTED_IMAGES = 6
_PER_CLASS = 2


def _named_source(value: str) -> str:
    """Checks that a value has a name and a source; the server checks both."""
    if not all(value.partition("=")):
        raise click.BadParameter(f"{value!r} is not NAME=SOURCE")
    return value


@command(
    "leadline demo",
    "leadline demo --out pictures --data-dir demo-data",
    "leadline demo --dataset pets=pets.tar --epochs 20",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="The folder to write curves.png and grid.png to.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the server's data in this folder.  [default: a temporary one]",
)
@click.option(
    "--dataset",
    metavar="NAME=SOURCE",
    callback=checked(_named_source),
    help="Train on your images: a folder or a tar of train/CLASS/* and test/CLASS/*.  "
    "[default: synthetic, which is built in]",
)
@click.option("--epochs", type=int, default=4, show_default=True, help="Epochs to train.")
@click.option("--json", "as_json", is_flag=True, help="Print each message as one JSON line.")
def demo(
    *, out: Path, data_dir: Path | None, dataset: str | None, epochs: int, as_json: bool
) -> ExitCode:
    """Start a server, train, predict and inspect, in about a minute.

    Needs no network, because the server draws the images. Trains on the dataset `synthetic` with
    live progress, predicts test images, lists misclassified ones, writes two pictures and stops the
    server. Needs the extras `server` and `plot`.
    """
    output = Output(as_json=as_json)
    began = time.monotonic()
    with _data_folder(data_dir) as folder:
        output.text("1. A server, on a free port.")
        flags = [] if dataset is None else ["--dataset", dataset]
        with running_server(folder, flags) as target:
            output.text(f"   It serves at {target}.\n")
            settings = Settings({"target": Setting(target, "demo")}, None, {"target": target})
            session = Session(settings=settings, timeout=30.0, output=output)
            with session.client() as client:
                name = "synthetic" if dataset is None else dataset.partition("=")[0]
                code = _show(session, client, out, name, epochs)
    if code is ExitCode.SUCCESS:
        _sum_up(output, data_dir, time.monotonic() - began)
    return code


@contextmanager
def _data_folder(data_dir: Path | None) -> Iterator[Path]:
    if data_dir is not None:
        yield data_dir
        return
    with tempfile.TemporaryDirectory(prefix="leadline-demo-") as folder:
        yield Path(folder)


def _show(session: Session, client: Client, out: Path, dataset: str, epochs: int) -> ExitCode:
    session.output.text("2. A training job, followed live.")
    view = make_view(session.output)
    job = client.train(
        dataset=dataset,
        blocks=2,
        batch_norm=True,
        epochs=epochs,
        learning_rate=0.05,
        momentum=0.9,
        progress_interval=view.progress_interval,
    )
    code = show_events(job, view)
    if code is ExitCode.SUCCESS:
        pages = _listed(client, job)
        _predict(session, client, job, pages)
        _show_wrong(session, pages)
        _draw(session, client, job, pages, out)
    return code


def _listed(client: Client, job: TrainingJob) -> list[ListMisclassifiedResponse]:
    pages = list_pages(
        client,
        {"model": job.model},
        per_class=_PER_CLASS,
        grouping="predicted_class",
        include_correct=True,
    )
    return list(pages)


def _predict(
    session: Session, client: Client, job: TrainingJob, pages: list[ListMisclassifiedResponse]
) -> None:
    session.output.text("\n3. Predictions of test images, by the model that was just trained.")
    examples = [example for page in pages for example in page.examples]
    examples = examples[:: max(1, len(examples) // _PREDICTED_IMAGES)][:_PREDICTED_IMAGES]
    predictions = client.predict([example.png for example in examples], model=job.model, top_k=3)
    if session.output.as_json:
        print_response(session, predictions)
        return
    names = [f"test image {example.index}: {example.true_class_name}" for example in examples]
    show_predictions(session, names, predictions)


def _show_wrong(session: Session, pages: list[ListMisclassifiedResponse]) -> None:
    session.output.text("\n4. Test images that it gets wrong, two for each predicted class.")
    if session.output.as_json:
        for page in pages:
            session.output.message(page)
        return
    wrong = [
        example
        for page in pages
        for example in page.examples
        if example.true_class_index != example.predicted_class_index
    ]
    show_table(session, wrong, pages[0])


def _draw(
    session: Session,
    client: Client,
    job: TrainingJob,
    pages: list[ListMisclassifiedResponse],
    out: Path,
) -> None:
    if not can_plot():
        session.output.text("\n5. No pictures without matplotlib, which is in the extra `plot`.")
        return
    write_curves([client.get_model(job.model)], out / "curves.png")
    grid = out / "grid.png"
    write_grid(client, pages, grid, grouping="predicted_class", per_class=_PER_CLASS)
    session.output.text(f"\n5. Pictures: {out / 'curves.png'} and {grid}.")


def _sum_up(output: Output, data_dir: Path | None, seconds: float) -> None:
    folder = [] if data_dir is None else ["--data-dir", str(data_dir)]
    serve = shlex.join(["leadline", "serve", *folder])
    output.text(
        f"\nAll in {seconds:.0f} s; the server is stopped again. Next, in two terminals:\n"
        f"  {serve}\n"
        "  leadline train --dataset synthetic --blocks 4 --batch-norm --epochs 10\n"
        "and, while that trains, leadline predict, misclassified and plot: each has --help."
    )
