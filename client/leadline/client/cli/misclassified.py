"""`leadline misclassified`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from leadline.client import Client, Example, ListMisclassifiedResponse
from leadline.client.cli import describe
from leadline.client.cli.commands import Command
from leadline.client.cli.figures.files import figure_path, require_plot
from leadline.client.cli.options import (
    Selector,
    Session,
    selector_options,
    session_options,
)

# As the notebook that this service grew from: two wrong and two right a class.
_GRID_PER_CLASS = 2


@click.command(
    cls=Command,
    examples=(
        "leadline misclassified --model models/phgcrktpjf --per-class 5",
        "leadline misclassified --dataset synthetic --blocks 2 --batch-norm --out grid.png",
        "leadline misclassified --model models/phgcrktpjf --json | jq '.examples[].index'",
    ),
)
@selector_options
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=figure_path,
    help="Write a picture grid to this file (png, pdf or svg) instead of a table.",
)
@click.option(
    "--per-class", type=int, help="At most so many wrong ones a class.  [all; for --out: 2]"
)
@click.option(
    "--grouping",
    type=click.Choice(["predicted_class", "true_class"]),
    default="predicted_class",
    show_default=True,
    help="The class that images are grouped by.",
)
@click.option("--include-correct", is_flag=True, help="List as many right ones as well.")
@session_options
def misclassified(
    session: Session,
    *,
    selector: Selector,
    out: Path | None,
    per_class: int | None,
    grouping: str,
    include_correct: bool,
) -> None:
    """Show the test images that a model gets wrong.

    The grid has a row for each class: wrong images that the model takes for it, then right ones.
    With --json each page of the listing is printed as it comes. Needs 'leadline[plot]' for --out.
    """
    if out is not None:
        require_plot()
        per_class = _GRID_PER_CLASS if per_class is None else per_class
        include_correct = True
    with session.client() as client:
        pages = list_pages(
            client,
            selector,
            per_class=per_class,
            grouping=grouping,
            include_correct=include_correct,
        )
        shown = list(_printed(session, pages))
    if out is not None:
        write_grid(shown, out, grouping=grouping, per_class=per_class or _GRID_PER_CLASS)
        session.output.text(f"{summary(shown[0])}\nwrote {out}")
    elif not session.output.as_json:
        examples = [example for page in shown for example in page.examples]
        show_table(session, examples, shown[0])


def list_pages(
    client: Client,
    selector: Selector,
    *,
    per_class: int | None,
    grouping: str,
    include_correct: bool,
) -> Iterator[ListMisclassifiedResponse]:
    """Every page of a listing."""
    token = ""
    while True:
        page = client.list_misclassified(
            **selector,
            per_class=per_class,
            grouping=grouping,
            include_correct=include_correct,
            page_token=token,
        )
        yield page
        token = page.next_page_token
        if not token:
            return


def show_table(
    session: Session, examples: Sequence[Example], page: ListMisclassifiedResponse
) -> None:
    """Prints examples, and what they are a part of, which any page says."""
    session.output.table(("#image", "is", "taken for", "#probability"), map(_row, examples))
    session.output.text(summary(page))


def write_grid(
    pages: list[ListMisclassifiedResponse], out: Path, *, grouping: str, per_class: int
) -> None:
    """Writes the examples as a picture grid."""
    from leadline.client.cli.figures.grid import draw_grid  # noqa: PLC0415 - needs matplotlib

    draw_grid(
        [example for page in pages for example in page.examples],
        [count.class_name for count in pages[0].class_counts],
        out,
        by_true_class=grouping == "true_class",
        per_class=per_class,
        title=summary(pages[0]),
    )


def summary(page: ListMisclassifiedResponse) -> str:
    """What the whole test set came to."""
    wrong = sum(count.wrong for count in page.class_counts)
    return (
        f"{page.model}: {wrong:,} of {page.test_images:,} test images wrong, "
        f"{describe.percent(page.test_accuracy)} right"
    )


def _printed(
    session: Session, pages: Iterator[ListMisclassifiedResponse]
) -> Iterator[ListMisclassifiedResponse]:
    for page in pages:
        if session.output.as_json:
            session.output.message(page)
        yield page


def _row(example: Example) -> list[str]:
    return [
        str(example.index),
        example.true_class_name,
        example.predicted_class_name,
        describe.percent(example.probability),
    ]
