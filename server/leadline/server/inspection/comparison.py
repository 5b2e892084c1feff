"""Compares two checkpoints image by image."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from leadline.server.inspection.answers import Answers, Indices
from leadline.server.inspection.examples import ExampleQuery, ImageFormat, Picture, picture_of
from leadline.server.inspection.mcnemar import McNemar, mcnemar


class Outcome(StrEnum):
    """The candidate's prediction of an image, compared with the baseline's."""

    FIXED = "fixed"  # the baseline is wrong, the candidate correct
    BROKEN = "broken"  # the baseline is correct, the candidate wrong
    STILL_WRONG = "still_wrong"  # both are wrong, with the same class or not


@dataclass(frozen=True, kw_only=True)
class ComparisonQuery(ExampleQuery):
    """Selects the examples of these outcomes, in this order."""

    outcomes: tuple[Outcome, ...] = tuple(Outcome)


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A model's prediction of an image."""

    predicted_class: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class ComparedExample:
    """An image, and the predictions of two models."""

    picture: Picture
    true_class: int
    outcome: Outcome
    baseline: Guess
    candidate: Guess


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The result of a comparison, and a page of examples.

    Attributes:
        images: the number of images in the split.
        counts: the number of images with each outcome.
        mcnemar: the significance test of the difference.
        examples: the examples of the page.
        total: the number of examples on all pages.
    """

    images: int
    counts: dict[Outcome, int]
    mcnemar: McNemar
    examples: tuple[ComparedExample, ...]
    total: int


def compare(
    baseline: Answers, candidate: Answers, query: ComparisonQuery, *, offset: int, limit: int
) -> Comparison:
    """Compares the predictions of two checkpoints on the same split.

    Returns at most `limit` examples after the first `offset`, ordered by outcome,
    then by the probability of the mistake, highest first. If both models are wrong,
    the candidate's probability counts.
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
    outcome: Outcome, index: int, baseline: Answers, candidate: Answers, image_format: ImageFormat
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
        predicted_class=int(answers.predicted[index]), probability=float(answers.probability[index])
    )
