"""Lists the images that a checkpoint misclassifies."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from leadline.server.inspection.answers import Answers, Indices
from leadline.server.inspection.examples import Example, ExampleQuery, example_of


class Grouping(StrEnum):
    """The class that examples are grouped by."""

    PREDICTED_CLASS = "predicted_class"
    TRUE_CLASS = "true_class"
    NONE = "none"


class Order(StrEnum):
    """The order of examples within a group."""

    MOST_PROBABLE = "most_probable"
    LEAST_PROBABLE = "least_probable"
    INDEX = "index"
    RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class ListingQuery(ExampleQuery):
    """Selects the examples to list.

    Attributes:
        per_class: the most wrong examples per group, and the most correct ones;
            None for no limit.
        grouping: the class that examples are grouped by.
        include_correct: whether to list correct examples too.
        predicted_class: only images predicted as this class; None for any.
        min_probability: only predictions with at least this probability.
        max_probability: only predictions with at most this probability.
        order: the order within a group, of wrong and of correct examples each.
        seed: the seed of a random order.
    """

    per_class: int | None = None
    grouping: Grouping = Grouping.PREDICTED_CLASS
    include_correct: bool = False
    predicted_class: int | None = None
    min_probability: float = 0.0
    max_probability: float = 1.0
    order: Order = Order.MOST_PROBABLE
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """The images of the whole split that belong to a class of the grouping."""

    wrong: int
    correct: int


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A page of examples, and totals.

    Attributes:
        examples: the examples of the page.
        total: the number of examples on all pages.
        class_counts: counts over the whole split, in the order of labels.
        images: the number of images in the split.
        correct: how many images are classified correctly.
    """

    examples: tuple[Example, ...]
    total: int
    class_counts: tuple[ClassCount, ...]
    images: int
    correct: int


def list_misclassified(
    answers: Answers, query: ListingQuery, *, offset: int, limit: int
) -> Listing:
    """Returns at most `limit` examples after the first `offset`.

    Orders them by the class of the grouping, then wrong before correct, then by the
    query's order.
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
    """Sorts candidates.

    Args:
        candidates: int64 [n], ascending indices of images.
        probability: float32 [N], by index.
        order: the order.
        seed: the seed of a random order.
    """
    match order:
        case Order.INDEX:
            return candidates
        case Order.MOST_PROBABLE:
            keys = -probability
        case Order.LEAST_PROBABLE:
            keys = probability
        case Order.RANDOM:
            # Across versions, NumPy guarantees the raw bits of a generator, but not permutations.
            bits = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(len(probability))
            return candidates[np.argsort(bits[candidates], kind="stable")]
    # Stable: ties are in the order of indices.
    return candidates[np.argsort(keys[candidates], kind="stable")]


def _choose(answers: Answers, query: ListingQuery) -> Indices:
    candidates = np.flatnonzero(_matches(answers, query)).astype(np.int64)
    ranked = in_order(candidates, answers.probability, query.order, query.seed)
    # A group's wrong examples come before its correct ones.
    ranks = 2 * _groups(answers, query.grouping)[ranked] + ~answers.wrong[ranked]
    by_rank = np.argsort(ranks, kind="stable")
    chosen, ranks = ranked[by_rank], ranks[by_rank]
    if query.per_class is None:
        return chosen
    first_of_rank = np.searchsorted(ranks, ranks)
    within: Indices = chosen[np.arange(len(chosen)) - first_of_rank < query.per_class]
    return within


def _matches(answers: Answers, query: ListingQuery) -> NDArray[np.bool_]:
    # As float64, like the bounds: float32 would round them.
    probability = answers.probability.astype(np.float64)
    matches = (probability >= query.min_probability) & (probability <= query.max_probability)
    if not query.include_correct:
        matches &= answers.wrong
    if query.true_class is not None:
        matches &= answers.labels == query.true_class
    if query.predicted_class is not None:
        matches &= answers.predicted == query.predicted_class
    return matches


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
        ClassCount(wrong=int(wrong), correct=int(correct))
        for wrong, correct in zip(wrong_counts, correct_counts, strict=True)
    )
