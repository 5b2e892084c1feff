"""`leadline compare`."""

import click

from leadline.client import ClassGuess, ComparedExample, CompareModelsResponse, Outcome
from leadline.client.cli import describe
from leadline.client.cli.commands import command
from leadline.client.cli.options import Session, limit_option, session_options, split_option

_OUTCOMES = {
    Outcome.OUTCOME_FIXED: "fixed",
    Outcome.OUTCOME_BROKEN: "broken",
    Outcome.OUTCOME_STILL_WRONG: "still wrong",
}


@command(
    "leadline compare models/phgcrktpjf models/tqzx81mmva",
    "leadline compare phgcrktpjf/epochs/3 phgcrktpjf --outcome broken --limit 50",
    "leadline compare phgcrktpjf tqzx81mmva --json | jq .mcnemar",
)
@click.argument("baseline")
@click.argument("candidate")
@split_option
@click.option(
    "--outcome",
    type=click.Choice(["fixed", "broken", "still_wrong"]),
    help="Show images of this outcome only.",
)
@click.option("--true-class", default="", metavar="CLASS", help="Show images of this class only.")
@limit_option
@session_options
def compare(
    session: Session,
    *,
    baseline: str,
    candidate: str,
    split: str,
    outcome: str | None,
    true_class: str,
    limit: int,
) -> None:
    """Compare two models image by image.

    An image is fixed if only CANDIDATE classifies it correctly, and broken if only BASELINE does.
    Each is an epoch, or a model, which stands for its best epoch; both need the same images.
    McNemar's test says whether the difference can be chance. --json prints the
    CompareModelsResponse, with the images.
    """
    with session.client() as client:
        page = client.compare_models(
            baseline,
            candidate,
            split=split,
            outcome=outcome or Outcome.OUTCOME_UNSPECIFIED,
            true_class=true_class,
            image_format="png" if session.output.as_json else "none",
            page_size=limit,
        )
    if session.output.as_json:
        session.output.message(page)
        return
    session.output.table(
        ("#image", "is", "outcome", "baseline", "candidate"), map(_row, page.examples)
    )
    session.output.text(_summary(page))


def _summary(page: CompareModelsResponse) -> str:
    return (
        f"baseline  {page.baseline}: {describe.percent(page.baseline_accuracy)} of "
        f"{describe.images_of(page.split, page.images)} right\n"
        f"candidate {page.candidate}: {describe.percent(page.candidate_accuracy)}\n"
        f"{page.fixed:,} fixed, {page.broken:,} broken, {page.still_wrong:,} still wrong, "
        f"{page.both_right:,} right in both; McNemar's test: {p_value(page.mcnemar.p_value)}"
    )


def p_value(value: float) -> str:
    """Formats a p-value."""
    return f"p = {value:.3g}" if value >= 1e-4 else "p < 0.0001"  # noqa: PLR2004 - as people write it


def outcome_name(outcome: Outcome.ValueType) -> str:
    """An outcome in words, even if this version does not know it."""
    return _OUTCOMES.get(outcome, "other")


def _row(example: ComparedExample) -> list[str]:
    return [
        str(example.index),
        example.true_class_name,
        outcome_name(example.outcome),
        _guess(example.baseline),
        _guess(example.candidate),
    ]


def _guess(guess: ClassGuess) -> str:
    return f"{guess.class_name}, {describe.percent(guess.probability)}"
