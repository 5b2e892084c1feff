"""Compares two checkpoints image by image."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from leadline.models.datasets import SplitName
from leadline.server.inspection.answers import Answers, Indices
from leadline.server.inspection.examples import ImageFormat, Picture, picture_of
from leadline.server.inspection.mcnemar import McNemar, mcnemar


class Outcome(StrEnum):
    """What the candidate makes of an image, compared with the baseline."""

    FIXED = "fixed"  # the baseline is wrong, the candidate right
    BROKEN = "broken"  # the other way round
    STILL_WRONG = "still_wrong"  # both are wrong, about one class or two


@dataclass(frozen=True, kw_only=True)
class ComparisonQuery:
    """Which examples to show.

    Attributes:
        split: of which images.
        outcomes: those of these outcomes, in this order.
        true_class: those of this class only; None for any.
        image_format: how images are sent.
    """

    split: SplitName = "test"
    outcomes: tuple[Outcome, ...] = tuple(Outcome)
    true_class: int | None = None
    image_format: ImageFormat = ImageFormat.PNG


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What a model takes an image for."""

    predicted_class: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class ComparedExample:
    """An image, and what two models take it for."""

    picture: Picture
    true_class: int
    outcome: Outcome
    baseline: Guess
    candidate: Guess


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What comparing came to, and a page of examples.

    Attributes:
        images: in the split.
        counts: how many images have each outcome.
        mcnemar: whether the difference can be chance.
        examples: those of the page.
        total: examples on all pages together.
    """

    images: int
    counts: dict[Outcome, int]
    mcnemar: McNemar
    examples: tuple[ComparedExample, ...]
    total: int


def compare(
    baseline: Answers, candidate: Answers, query: ComparisonQuery, *, offset: int, limit: int
) -> Comparison:
    """Compares the answers of two checkpoints about the same split.

    It shows at most `limit` examples after the first `offset`: by outcome,
    within it by the probability of the mistake, the candidate's where both make
    one, the highest first.
    """
    of_outcome = _outcomes(baseline, candidate)
    chosen = [
        (outcome, int(index))
        for outcome in query.outcomes
        for index in _ranked(outcome, of_outcome[outcome], baseline, candidate, query)
    ]
    counts = {outcome: int(np.count_nonzero(mask)) for outcome, mask in of_outcome.items()}
    return Comparison(
        images=len(baseline.labels),
        counts=counts,
        mcnemar=mcnemar(counts[Outcome.FIXED], counts[Outcome.BROKEN]),
        examples=tuple(
            _example(outcome, index, baseline, candidate, query.image_format)
            for outcome, index in chosen[offset : offset + limit]
        ),
        total=len(chosen),
    )


def _outcomes(baseline: Answers, candidate: Answers) -> dict[Outcome, NDArray[np.bool_]]:
    before, after = baseline.wrong, candidate.wrong
    return {
        Outcome.FIXED: before & ~after,
        Outcome.BROKEN: ~before & after,
        Outcome.STILL_WRONG: before & after,
    }


def _ranked(
    outcome: Outcome,
    mask: NDArray[np.bool_],
    baseline: Answers,
    candidate: Answers,
    query: ComparisonQuery,
) -> Indices:
    if query.true_class is not None:
        mask = mask & (baseline.labels == query.true_class)
    mistaken = baseline if outcome is Outcome.FIXED else candidate
    indices = np.flatnonzero(mask)
    ranked: Indices = indices[np.argsort(-mistaken.probability[indices], kind="stable")]
    return ranked


def _example(
    outcome: Outcome,
    index: int,
    baseline: Answers,
    candidate: Answers,
    image_format: ImageFormat,
) -> ComparedExample:
    return ComparedExample(
        picture=picture_of(baseline, index, image_format),
        true_class=int(baseline.labels[index]),
        outcome=outcome,
        baseline=_guess(baseline, index),
        candidate=_guess(candidate, index),
    )


def _guess(answers: Answers, index: int) -> Guess:
    return Guess(
        predicted_class=int(answers.predicted[index]),
        probability=float(answers.probability[index]),
    )
