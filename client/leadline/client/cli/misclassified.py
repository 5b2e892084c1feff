"""`leadline misclassified`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from leadline.client import Client, Example, ListMisclassifiedResponse
from leadline.client.cli import describe
from leadline.client.cli.commands import command
from leadline.client.cli.figures.files import FIGURE_SUFFIXES, require_plot
from leadline.client.cli.files import out_option
from leadline.client.cli.options import (
    Selector,
    Session,
    selector_options,
    session_options,
    split_option,
)
from leadline.client.cli.plot import write_grid

_LARGEST_PAGE = 1_000

# As in the notebook that Leadline started from: two wrong and two correct images per class.
_GRID_PER_CLASS = 2


@command(
    "leadline misclassified --model models/phgcrktpjf --per-class 5",
    "leadline misclassified --model models/phgcrktpjf --grouping none --limit 20",
    "leadline misclassified --model phgcrktpjf/epochs/3 --true-class cat --predicted-class dog",
    "leadline misclassified --dataset synthetic --blocks 2 --batch-norm --out grid.png",
    "leadline misclassified --model models/phgcrktpjf --json | jq '.examples[].index'",
)
@selector_options
@out_option(
    *FIGURE_SUFFIXES,
    text="Write a picture grid to this file (png, pdf or svg) instead of a table.",
    required=False,
)
@split_option
@click.option("--true-class", default="", metavar="CLASS", help="Only images of this class.")
@click.option(
    "--predicted-class", default="", metavar="CLASS", help="Only images predicted as this class."
)
@click.option(
    "--min-probability",
    type=float,
    help="Only predictions with at least this softmax probability, 0 to 1,",
)
@click.option("--max-probability", type=float, help="and at most this one.")
@click.option(
    "--grouping",
    type=click.Choice(["predicted_class", "true_class", "none"]),
    default="predicted_class",
    show_default=True,
    help="The class that images are grouped by.",
)
@click.option(
    "--order",
    type=click.Choice(["most_probable", "least_probable", "index", "random"]),
    default="most_probable",
    show_default=True,
    help="Which image of a group comes first.",
)
@click.option("--seed", type=int, help="The seed of a random order.  [0]")
@click.option("--per-class", type=int, help="The most wrong images per group.  [all; for --out: 2]")
@click.option("--include-correct", is_flag=True, help="List as many correct images as well.")
@click.option("--limit", type=click.IntRange(min=1), help="The most images in all.")
@session_options
def misclassified(
    session: Session,
    *,
    selector: Selector,
    out: Path | None,
    limit: int | None,
    **asked: Any,
) -> None:
    """Show the images that a model misclassifies.

    The grid has a row for each class: images wrongly predicted as it, then correct ones. --json
    prints each page of the listing as it arrives. --out needs the extra `plot`.
    """
    if out is None:
        # Only JSON has images; a table has none.
        image_format = "png" if session.output.as_json else "none"
        with session.client() as client:
            pages = list_pages(client, selector, limit=limit, image_format=image_format, **asked)
            shown = list(_printed(session, pages))
        if not session.output.as_json:
            show_table(session, [example for page in shown for example in page.examples], shown[0])
        return
    _check_grid(asked, limit)
    per_class = _GRID_PER_CLASS if asked["per_class"] is None else asked["per_class"]
    asked.update(per_class=per_class, include_correct=True)
    with session.client() as client:
        shown = list(_printed(session, list_pages(client, selector, **asked)))
        write_grid(client, shown, out, grouping=asked["grouping"], per_class=per_class)
    session.output.text(f"{summary(shown[0])}\nwrote {out}")


def _check_grid(asked: dict[str, Any], limit: int | None) -> None:
    if asked["grouping"] == "none":
        raise click.UsageError("a grid has a row for each class: leave out --grouping none")
    if limit is not None:
        raise click.UsageError("a grid has --per-class images a row: leave out --limit")
    require_plot()


def list_pages(
    client: Client, selector: Selector, *, limit: int | None = None, **asked: Any
) -> Iterator[ListMisclassifiedResponse]:
    """The pages of a listing, up to `limit` examples; passes `asked` to `list_misclassified`."""
    token, left = "", limit
    while True:
        size = 0 if left is None else min(left, _LARGEST_PAGE)
        page = client.list_misclassified(**selector, page_size=size, page_token=token, **asked)
        yield page
        token = page.next_page_token
        if left is not None:
            left -= len(page.examples)
        if not token or left == 0:
            return


def show_table(
    session: Session, examples: Sequence[Example], page: ListMisclassifiedResponse
) -> None:
    """Prints examples, and the totals of the listing, which every page has."""
    session.output.table(("#image", "true class", "predicted", "#probability"), map(_row, examples))
    session.output.text(summary(page))


def summary(page: ListMisclassifiedResponse) -> str:
    """The results of the whole split, in words."""
    wrong = sum(count.wrong for count in page.class_counts)
    return (
        f"{page.model}: {wrong:,} of {describe.images_of(page.split, page.split_images)} wrong, "
        f"{describe.percent(page.split_accuracy)} right"
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
