"""Finds images whose labels are likely to be wrong.

The rule is that of confident learning (Northcutt, Jiang and Chuang,
"Confident Learning: Estimating Uncertainty in Dataset Labels", Journal of
Artificial Intelligence Research 70, 2021), held by several models: a model
contradicts a label where it takes the image for another class with at least
the probability that it gives that class, on average, to the images that are
labelled with it. An image is reported where enough models contradict its
label for the same class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leadline.models.datasets import SplitName
from leadline.server.errors import FailedPreconditionError
from leadline.server.inspection.answers import Answers, Indices
from leadline.server.inspection.examples import ImageFormat, Picture, picture_of

_NO_CLASS = -1


@dataclass(frozen=True, kw_only=True)
class LabelErrorQuery:
    """Which images to report.

    Attributes:
        split: of which images.
        min_models: how many must contradict a label, for the same class.
        true_class: those that are labelled with this class only; None for any.
        image_format: how images are sent.
    """

    split: SplitName = "test"
    min_models: int = 2
    true_class: int | None = None
    image_format: ImageFormat = ImageFormat.PNG


@dataclass(frozen=True, kw_only=True)
class LabelError:
    """An image whose label several models contradict.

    Attributes:
        picture: the image.
        true_class: what it is labelled with.
        suggested_class: what most of those that contradict take it for.
        models: how many contradict the label for this class.
        margin: the mean, over these, of the probability of the suggested class
            less that of the label.
    """

    picture: Picture
    true_class: int
    suggested_class: int
    models: int
    margin: float


@dataclass(frozen=True, kw_only=True)
class LabelErrors:
    """A page of such images, and how many there are on all pages."""

    examples: tuple[LabelError, ...]
    total: int


def find_label_errors(
    several: Sequence[Answers], query: LabelErrorQuery, *, offset: int, limit: int
) -> LabelErrors:
    """Holds the answers of several checkpoints against the labels of a split.

    It shows at most `limit` images after the first `offset`: those first that
    more models contradict, then those of the higher margin, then by index.

    Args:
        several: of one split each, the same; at least one.
        query: which images to report.
        offset: images to pass over.
        limit: images to show.

    Raises:
        FailedPreconditionError: a checkpoint was made before the probability of
            the labels was kept.
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
    """For each image the class most suggested, by how many models, and their mean margin.

    Of classes that as many suggest it is the one of the higher margin.
    """
    margins, suggestions = (
        np.stack(part) for part in zip(*map(_contradictions, several), strict=True)
    )
    suggested = np.full(len(several[0].labels), _NO_CLASS)
    votes, margin = np.zeros_like(suggested), np.zeros(len(suggested))
    # Over models rather than classes, of which there may be a thousand.
    for suggestion in suggestions:
        agree = (suggestions == suggestion) & (suggestion != _NO_CLASS)
        count = agree.sum(axis=0)
        mean = (margins * agree).sum(axis=0) / np.maximum(count, 1)
        better = (count > votes) | ((count == votes) & (mean > margin))
        suggested[better], votes[better] = suggestion[better], count[better]
        margin[better] = mean[better]
    return suggested, votes, margin


def _contradictions(answers: Answers) -> tuple[NDArray[np.float64], Indices]:
    """By how much each image is taken for its predicted class rather, and what contradicts it."""
    own = _true_probability(answers).astype(np.float64)
    images = np.bincount(answers.labels, minlength=len(answers.class_names))
    total = np.bincount(answers.labels, weights=own, minlength=len(answers.class_names))
    # Where no image is labelled with a class, nothing says how sure one can be of it.
    thresholds = np.where(images > 0, total / np.maximum(images, 1), np.inf)
    probability = answers.probability.astype(np.float64)
    contradicts = answers.wrong & (probability >= thresholds[answers.predicted])
    return probability - own, np.where(contradicts, answers.predicted, _NO_CLASS)


def _true_probability(answers: Answers) -> NDArray[np.float32]:
    if answers.true_probability is None:
        name = answers.checkpoint.name
        raise FailedPreconditionError(
            f"{name} was trained by a version that did not keep the probabilities of the labels: "
            "name other models, or train again",
            reason="PREDICTIONS_NOT_KEPT",
            metadata={"model": name, "split": answers.split},
        )
    return answers.true_probability
