"""Lists the images that a checkpoint takes for another class than their own."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from leadline.models.datasets import SplitName
from leadline.server.inspection.answers import Answers, Indices
from leadline.server.inspection.examples import Example, ImageFormat, example_of


class Grouping(StrEnum):
    """The class that examples are grouped by."""

    PREDICTED_CLASS = "predicted_class"
    TRUE_CLASS = "true_class"
    NONE = "none"


class Order(StrEnum):
    """Which example of a group comes before which."""

    MOST_PROBABLE = "most_probable"
    LEAST_PROBABLE = "least_probable"
    INDEX = "index"
    RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class ListingQuery:
    """Which examples to list.

    Attributes:
        split: of which images.
        per_class: at most so many wrong ones a group, and as many right ones;
            None for all.
        grouping: which examples stand together.
        include_correct: whether to list right ones as well.
        true_class: those of this class only; None for any.
        predicted_class: those that are taken for this class only.
        min_probability: those whose predicted class has at least this one.
        max_probability: and at most this one.
        order: within a group, of the wrong and of the right ones each.
        seed: what a random order derives from.
        image_format: how images are sent.
    """

    split: SplitName = "test"
    per_class: int | None = None
    grouping: Grouping = Grouping.PREDICTED_CLASS
    include_correct: bool = False
    true_class: int | None = None
    predicted_class: int | None = None
    min_probability: float = 0.0
    max_probability: float = 1.0
    order: Order = Order.MOST_PROBABLE
    seed: int = 0
    image_format: ImageFormat = ImageFormat.PNG


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """How many images of the whole split fall to a class."""

    wrong: int
    correct: int


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A page of examples, and the sums of all pages.

    Attributes:
        examples: those of the page.
        total: examples on all pages together.
        class_counts: of the whole split, a count a class.
        images: in the split.
        correct: how many of these are classified rightly.
    """

    examples: tuple[Example, ...]
    total: int
    class_counts: tuple[ClassCount, ...]
    images: int
    correct: int


def list_misclassified(
    answers: Answers, query: ListingQuery, *, offset: int, limit: int
) -> Listing:
    """At most `limit` examples after the first `offset`.

    They are ordered by the class that they are grouped by, within it the wrong
    before the right, within these as the query says.
    """
    chosen = _choose(answers, query)
    return Listing(
        examples=tuple(
            example_of(answers, int(index), query.image_format)
            for index in chosen[offset : offset + limit]
        ),
        total=len(chosen),
        class_counts=_count(answers, query.grouping),
        images=len(answers.labels),
        correct=int((~answers.wrong).sum()),
    )


def in_order(
    candidates: Indices, probability: NDArray[np.float32], order: Order, seed: int
) -> Indices:
    """The candidates in an order.

    Args:
        candidates: int64 [n], ascending indices of images.
        probability: float32 [N], by the index.
        order: which comes before which.
        seed: what a random order derives from.
    """
    match order:
        case Order.INDEX:
            return candidates
        case Order.MOST_PROBABLE:
            keys = -probability
        case Order.LEAST_PROBABLE:
            keys = probability
        case Order.RANDOM:
            # NumPy promises the raw bits of a generator for ever, but not its permutations.
            bits = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(len(probability))
            return candidates[np.argsort(bits[candidates], kind="stable")]
    # Stable: of equals the one of the lower index comes first.
    return candidates[np.argsort(keys[candidates], kind="stable")]


def _choose(answers: Answers, query: ListingQuery) -> Indices:
    candidates = np.flatnonzero(_wanted(answers, query)).astype(np.int64)
    ranked = in_order(candidates, answers.probability, query.order, query.seed)
    # The wrong of a group come right before its right ones.
    places = 2 * _groups(answers, query.grouping)[ranked] + ~answers.wrong[ranked]
    by_place = np.argsort(places, kind="stable")
    chosen, places = ranked[by_place], places[by_place]
    if query.per_class is None:
        return chosen
    first_of_place = np.searchsorted(places, places)
    within: Indices = chosen[np.arange(len(chosen)) - first_of_place < query.per_class]
    return within


def _wanted(answers: Answers, query: ListingQuery) -> NDArray[np.bool_]:
    # As float64, in which the bounds come: float32 would round them.
    probability = answers.probability.astype(np.float64)
    wanted = (probability >= query.min_probability) & (probability <= query.max_probability)
    if not query.include_correct:
        wanted &= answers.wrong
    if query.true_class is not None:
        wanted &= answers.labels == query.true_class
    if query.predicted_class is not None:
        wanted &= answers.predicted == query.predicted_class
    return wanted


def _groups(answers: Answers, grouping: Grouping) -> Indices:
    match grouping:
        case Grouping.PREDICTED_CLASS:
            return answers.predicted
        case Grouping.TRUE_CLASS:
            return answers.labels
        case Grouping.NONE:
            return np.zeros_like(answers.labels)


def _count(answers: Answers, grouping: Grouping) -> tuple[ClassCount, ...]:
    groups = answers.labels if grouping is Grouping.TRUE_CLASS else answers.predicted
    classes = len(answers.class_names)
    wrong_counts = np.bincount(groups[answers.wrong], minlength=classes)
    correct_counts = np.bincount(groups[~answers.wrong], minlength=classes)
    return tuple(
        ClassCount(wrong=int(one), correct=int(other))
        for one, other in zip(wrong_counts, correct_counts, strict=True)
    )
