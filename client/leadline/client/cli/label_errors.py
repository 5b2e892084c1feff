"""`leadline label-errors`."""

import click

from leadline.client import LikelyLabelError, ListLikelyLabelErrorsResponse, Split
from leadline.client._text import counted
from leadline.client.cli.commands import command
from leadline.client.cli.options import Session, limit_option, session_options, split_option


@command(
    "leadline label-errors --dataset cifar10",
    "leadline label-errors phgcrktpjf tqzx81mmva --split train --min-models 2",
    "leadline label-errors --dataset cifar10 --json | jq '.examples[].name'",
)
@click.argument("models", nargs=-1, metavar="[MODEL...]")
@click.option(
    "--dataset", default="", help="Instead: the best model of each good variant on this dataset."
)
@split_option
@click.option(
    "--min-models",
    type=int,
    help="Models that must contradict a label.  [more than half, at least 2]",
)
@click.option("--true-class", default="", metavar="CLASS", help="Only images with this label.")
@limit_option
@session_options
def label_errors(
    session: Session,
    *,
    models: tuple[str, ...],
    dataset: str,
    split: str,
    min_models: int | None,
    true_class: str,
    limit: int,
) -> None:
    """Show images whose labels are likely wrong.

    Several models predict the same other class, each with more confidence than it usually has in
    that class. --json prints the ListLikelyLabelErrorsResponse, with the images.
    """
    if bool(models) == bool(dataset):
        raise click.UsageError("choose either two or more MODELs or a --dataset")
    with session.client() as client:
        page = client.list_likely_label_errors(
            models=models,
            dataset=dataset,
            split=split,
            min_models=min_models,
            true_class=true_class,
            image_format="png" if session.output.as_json else "none",
            page_size=limit,
        )
    if session.output.as_json:
        session.output.message(page)
        return
    session.output.table(
        ("#image", "label", "suggested", "#models", "#margin"), map(_row, page.examples)
    )
    session.output.text(_summary(page))


def _summary(page: ListLikelyLabelErrorsResponse) -> str:
    images = "training" if page.split == Split.SPLIT_TRAIN else "test"
    return (
        f"{counted(page.total_size, 'label')} of {images} images contradicted by at least "
        f"{page.min_models} of {', '.join(page.models)}"
    )


def _row(example: LikelyLabelError) -> list[str]:
    return [
        str(example.index),
        example.true_class_name,
        example.suggested_class_name,
        str(example.contradicting_models),
        f"{example.margin:.3f}",
    ]
