"""Statistics of kept predictions, without a server."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from leadline.models.predictions import (
    SplitPredictions,
    decode_predictions,
    encode_predictions,
)
from leadline.server.errors import FailedPreconditionError
from leadline.server.inspection.answers import Answers
from leadline.server.inspection.calibration import calibrate
from leadline.server.inspection.confusion import confusion_of
from leadline.server.inspection.examples import ImageFormat
from leadline.server.inspection.label_errors import LabelErrorQuery, find_label_errors
from leadline.server.inspection.mcnemar import mcnemar
from leadline.server.inspection.misclassified import Grouping, ListingQuery, list_misclassified
from leadline.server.serving.catalog import CheckpointRef

CLASSES = ("ant", "bee", "cow")


def answers(
    labels: list[int],
    predicted: list[int],
    probability: list[float] | None = None,
    true_probability: list[float] | None = None,
) -> Answers:
    started = SimpleNamespace(class_names=CLASSES, dataset_fingerprint="f" * 64)
    model = SimpleNamespace(started=started)
    checkpoint = cast("CheckpointRef", SimpleNamespace(model=model, name="models/a/epochs/1"))
    count = len(labels)
    return Answers(
        checkpoint=checkpoint,
        split="test",
        images=np.zeros((count, 32, 32, 3), dtype=np.uint8),
        aspect_ratios=None,
        labels=np.array(labels),
        predicted=np.array(predicted),
        probability=np.array(probability or [0.5] * count, dtype=np.float32),
        true_probability=np.array(true_probability or [0.1] * count, dtype=np.float32),
    )


def test_a_confusion_matrix_has_the_true_class_in_its_rows() -> None:
    found = confusion_of(answers([0, 0, 0, 1, 1], [0, 0, 1, 1, 0]))

    assert found.counts.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert (found.images, found.accuracy) == (5, 3 / 5)
    ant, bee, cow = found.classes
    assert (ant.precision, ant.recall, ant.f1) == (2 / 3, 2 / 3, 2 / 3)
    assert (bee.precision, bee.recall, bee.f1) == (1 / 2, 1 / 2, 1 / 2)
    assert (bee.support, bee.predicted) == (2, 2)
    assert (cow.precision, cow.recall, cow.f1) == (None, None, None)


def test_the_calibration_error_is_that_of_its_definition() -> None:
    random = np.random.default_rng(0)
    probability = random.random(2_000, dtype=np.float32)
    right = random.random(2_000) < 0.5

    found = calibrate(probability, right)

    expected = 0.0
    for place in range(15):
        inside = (probability > place / 15) & (probability <= (place + 1) / 15)
        gap = abs(right[inside].mean() - probability[inside].astype(float).mean())
        expected += gap * inside.sum() / 2_000
    assert found.expected_error == pytest.approx(expected, abs=1e-12)
    assert found.maximum_error == max(one.gap for one in found.bins)
    assert sum(one.images for one in found.bins) == 2_000


def test_certainty_and_impossibility_have_their_bins() -> None:
    found = calibrate(np.array([0, 1], dtype=np.float32), np.array([False, True]))

    assert [one.images for one in found.bins] == [1, *[0] * 13, 1]
    assert found.expected_error == 0
    assert found.bins[1].confidence is None
    assert found.bins[1].accuracy is None


# Twice the tail of as many tosses of a fair coin, such as 2 (1 + 12 + 66) / 2**12.
@pytest.mark.parametrize(
    ("fixed", "broken", "p_value"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (10, 2, 0.03857421875),
        (2, 10, 0.03857421875),
        (12, 12, 1.0),
        (0, 24, 2 / 2**24),
    ],
)
def test_few_discordant_images_are_tested_exactly(fixed: int, broken: int, p_value: float) -> None:
    found = mcnemar(fixed, broken)

    assert found.is_exact
    assert found.p_value == p_value
    assert found.discordant == fixed + broken


@pytest.mark.parametrize("pair", [(20, 5), (5, 20), (13, 12), (300, 200), (4_000, 10)])
def test_many_discordant_images_are_tested_by_chi_squared(pair: tuple[int, int]) -> None:
    fixed, broken = pair
    statistic = (abs(fixed - broken) - 1) ** 2 / (fixed + broken)

    found = mcnemar(fixed, broken)

    assert not found.is_exact
    assert found.statistic == statistic
    # One degree of freedom: the square of a standard normal variable.
    assert found.p_value == pytest.approx(math.erfc(math.sqrt(statistic) / math.sqrt(2)), rel=1e-9)


def test_the_approximation_meets_the_exact_test() -> None:
    exact = sum(math.comb(100, count) for count in range(41)) * 2 / 2**100

    assert mcnemar(60, 40).p_value == pytest.approx(exact, rel=0.01)


def test_a_label_is_contradicted_where_models_are_surer_than_they_usually_are() -> None:
    # The model's mean probability for bees is 0.6: (0.8 + 0.4) / 2.
    labels = [0, 0, 0, 1, 1]
    predicted = [1, 1, 0, 1, 2]
    probability = [0.7, 0.5, 0.9, 0.8, 0.5]
    own = [0.2, 0.4, 0.9, 0.8, 0.4]
    one = answers(labels, predicted, probability, own)

    found = find_label_errors([one, one], LabelErrorQuery(), offset=0, limit=10)

    # Image 1 is below that, and image 4 is predicted as a class without images.
    (example,) = found.examples
    assert example.picture.ref.name == f"datasets/{'f' * 64}/test/0"
    assert (example.true_class, example.suggested_class, example.models) == (0, 1, 2)
    assert example.margin == pytest.approx(0.5)


def test_enough_models_must_suggest_the_same_class() -> None:
    labels = [0, 0, 1, 2]
    own = [0.1, 0.1, 0.3, 0.3]
    sure = [0.8, 0.8, 0.3, 0.3]
    bee = answers(labels, [1, 1, 1, 2], sure, own)
    cow = answers(labels, [2, 1, 1, 2], [0.7, *sure[1:]], own)

    def found(min_models: int) -> list[tuple[int, int, int]]:
        query = LabelErrorQuery(min_models=min_models)
        errors = find_label_errors([bee, cow], query, offset=0, limit=10)
        return [(one.picture.ref.index, one.suggested_class, one.models) for one in errors.examples]

    assert found(2) == [(1, 1, 2)]
    assert found(1) == [(1, 1, 2), (0, 1, 1)]


def test_the_most_contradicted_come_first_page_by_page() -> None:
    random = np.random.default_rng(1)

    def model() -> Answers:
        own = random.random(300) / 2
        drawn: Any = random.integers(0, 3, (2, 300))
        labels = np.arange(300) % 3
        return answers(labels.tolist(), drawn[0].tolist(), (1 - own).tolist(), own.tolist())

    several = [model() for _ in range(5)]
    whole = find_label_errors(several, LabelErrorQuery(), offset=0, limit=1_000)
    keys = [(-one.models, -one.margin, one.picture.ref.index) for one in whole.examples]
    pages = [
        example
        for offset in range(0, whole.total, 7)
        for example in find_label_errors(
            several, LabelErrorQuery(), offset=offset, limit=7
        ).examples
    ]

    assert len(keys) == whole.total > 20
    assert keys == sorted(keys)
    assert tuple(pages) == whole.examples


def test_a_model_without_the_probabilities_of_the_labels_says_so() -> None:
    older = replace(answers([0], [1]), true_probability=None)

    with pytest.raises(FailedPreconditionError, match="models/a/epochs/1"):
        find_label_errors([older], LabelErrorQuery(), offset=0, limit=1)


# Stored probabilities are rounded: to steps of 1/65535 for test images, 1/255 for training images.


@pytest.fixture(params=[("test", 0.5 / 65_535), ("train", 0.5 / 255)], ids=["test", "train"])
def kept(request: pytest.FixtureRequest) -> tuple[Answers, Answers, float]:
    """The answers of a model that gets half of 3,000 images right, and as they are kept.

    The third value is the most by which a kept probability differs.
    """
    split, resolution = request.param
    random = np.random.default_rng(7)
    labels = np.arange(3_000) % 3
    logits = random.normal(size=(3_000, 3)) + 0.8 * (np.arange(3) == labels[:, None])
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    exact = answers(
        labels.tolist(),
        softmax.argmax(axis=1).tolist(),
        softmax.max(axis=1).tolist(),
        softmax[np.arange(3_000), labels].tolist(),
    )
    computed = SplitPredictions(exact.predicted, exact.probability, exact.true_probability)
    data = encode_predictions(computed, computed, classes=3)
    stored = decode_predictions(data, split)
    rounded = replace(exact, **vars(stored))
    return exact, rounded, resolution + 1e-7


def test_the_listing_of_kept_predictions_is_that_of_exact_ones_but_for_close_probabilities(
    kept: tuple[Answers, Answers, float],
) -> None:
    exact, rounded, resolution = kept
    query = ListingQuery(
        include_correct=True, grouping=Grouping.NONE, image_format=ImageFormat.NONE
    )

    whole = list_misclassified(rounded, query, offset=0, limit=3_000)
    pages = [
        example
        for offset in range(0, whole.total, 700)
        for example in list_misclassified(rounded, query, offset=offset, limit=700).examples
    ]

    assert tuple(pages) == whole.examples
    assert whole.class_counts == list_misclassified(exact, query, offset=0, limit=1).class_counts
    order = [example.picture.ref.index for example in whole.examples]
    assert sorted(order) == list(range(3_000))
    wrong = int(exact.wrong.sum())
    for part in (order[:wrong], order[wrong:]):
        assert (np.diff(exact.probability[part]) <= 2 * resolution).all()
    for example in whole.examples:
        assert abs(example.probability - exact.probability[example.picture.ref.index]) <= resolution


def test_kept_predictions_are_as_well_calibrated_as_exact_ones(
    kept: tuple[Answers, Answers, float],
) -> None:
    exact, rounded, resolution = kept
    before, after = (confusion_of(each) for each in (exact, rounded))

    assert after.counts.tolist() == before.counts.tolist()
    assert after.calibration.expected_error == pytest.approx(
        before.calibration.expected_error, abs=4 * resolution
    )


def test_kept_predictions_contradict_the_same_labels_but_for_close_calls(
    kept: tuple[Answers, Answers, float],
) -> None:
    exact, rounded, resolution = kept
    assert exact.true_probability is not None
    thresholds = [exact.true_probability[exact.labels == label].mean() for label in range(3)]
    distance = np.abs(exact.probability - np.array(thresholds)[exact.predicted])

    query = LabelErrorQuery(min_models=1, image_format=ImageFormat.NONE)
    before, after = (
        {
            error.picture.ref.index: error
            for error in find_label_errors([each], query, offset=0, limit=3_000).examples
        }
        for each in (exact, rounded)
    )

    assert len(after) > 500
    assert all(distance[index] <= 2 * resolution for index in before.keys() ^ after.keys())
    for index in before.keys() & after.keys():
        assert after[index].suggested_class == before[index].suggested_class
        assert after[index].margin == pytest.approx(before[index].margin, abs=2 * resolution)
