"""Finds images whose labels are probably wrong.

The rule is confident learning (Northcutt, Jiang and Chuang,
"Confident Learning: Estimating Uncertainty in Dataset Labels", Journal of
Artificial Intelligence Research 70, 2021) with votes of several models. The
threshold of a class is its mean probability on the images labelled with it. A model
contradicts a label if it predicts another class with at least that class's threshold.
An image is reported if enough models contradict its label with the same class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leadline.server.inspection.answers import Answers, Indices, not_kept
from leadline.server.inspection.examples import ExampleQuery, Picture, picture_of

_NO_CLASS = -1


@dataclass(frozen=True, kw_only=True)
class LabelErrorQuery(ExampleQuery):
    """Selects images for which at least `min_models` suggest the same other class."""

    min_models: int = 2


@dataclass(frozen=True, kw_only=True)
class LabelError:
    """An image whose label several models contradict.

    Attributes:
        picture: the image.
        true_class: its label.
        suggested_class: the class that most contradicting models predict.
        models: how many models suggest this class.
        margin: the mean, over these models, of the probability of the suggested
            class minus that of the label.
    """

    picture: Picture
    true_class: int
    suggested_class: int
    models: int
    margin: float


@dataclass(frozen=True, kw_only=True)
class LabelErrors:
    """A page of label errors, and the number on all pages."""

    examples: tuple[LabelError, ...]
    total: int


def find_label_errors(
    several: Sequence[Answers], query: LabelErrorQuery, *, offset: int, limit: int
) -> LabelErrors:
    """Compares the predictions of at least one checkpoint with a split's labels.

    Returns at most `limit` images after the first `offset`, ordered by the number of
    contradicting models, then by margin, both descending, then by index.

    Raises:
        FailedPreconditionError: a checkpoint is from a version that did not store
            the probabilities of the labels.
    """
    suggested, models, margin = _vote(several)
    reported = models >= query.min_models
    if query.true_class is not None:
        reported &= several[0].labels == query.true_class
    candidates = np.flatnonzero(reported)
    order = np.lexsort((candidates, -margin[candidates], -models[candidates]))
    return LabelErrors(
        examples=tuple(
            LabelError(
                picture=picture_of(several[0], int(index), query.image_format),
                true_class=int(several[0].labels[index]),
                suggested_class=int(suggested[index]),
                models=int(models[index]),
                margin=float(margin[index]),
            )
            for index in candidates[order][offset : offset + limit]
        ),
        total=len(candidates),
    )


def _vote(several: Sequence[Answers]) -> tuple[Indices, Indices, NDArray[np.float64]]:
    """For each image: the most suggested class, the number of models, and their mean margin.

    A tie goes to the class with the higher margin.
    """
    margins, suggestions = (
        np.stack(part) for part in zip(*map(_contradictions, several), strict=True)
    )
    suggested = np.full(len(several[0].labels), _NO_CLASS)
    votes, margin = np.zeros_like(suggested), np.zeros(len(suggested))
    # A loop over models, because there may be a thousand classes.
    for suggestion in suggestions:
        agree = (suggestions == suggestion) & (suggestion != _NO_CLASS)
        count = agree.sum(axis=0)
        mean = (margins * agree).sum(axis=0) / np.maximum(count, 1)
        better = (count > votes) | ((count == votes) & (mean > margin))
        suggested[better], votes[better] = suggestion[better], count[better]
        margin[better] = mean[better]
    return suggested, votes, margin


def _contradictions(answers: Answers) -> tuple[NDArray[np.float64], Indices]:
    """Each image's margin of the predicted class over the label, and the suggested class."""
    own = _true_probability(answers).astype(np.float64)
    images = np.bincount(answers.labels, minlength=len(answers.class_names))
    total = np.bincount(answers.labels, weights=own, minlength=len(answers.class_names))
    # A class without images has no mean probability, so it is never suggested.
    thresholds = np.where(images > 0, total / np.maximum(images, 1), np.inf)
    probability = answers.probability.astype(np.float64)
    contradicts = answers.wrong & (probability >= thresholds[answers.predicted])
    return probability - own, np.where(contradicts, answers.predicted, _NO_CLASS)


def _true_probability(answers: Answers) -> NDArray[np.float32]:
    if answers.true_probability is None:
        what = "did not store the probabilities of the labels: use other models"
        raise not_kept(answers.checkpoint, answers.split, what)
    return answers.true_probability
