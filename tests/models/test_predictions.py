from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

from leadline.models.predictions import (
    NoPredictionsError,
    SplitPredictions,
    decode_predictions,
    encode_predictions,
)


def predictions(images: int, classes: int, seed: int = 0) -> SplitPredictions:
    random = np.random.default_rng(seed)
    return SplitPredictions(
        predicted=random.integers(0, classes, images),
        probability=random.random(images, dtype=np.float32),
        true_probability=random.random(images, dtype=np.float32),
    )


@pytest.mark.parametrize("classes", [2, 256, 1000])
def test_the_test_set_comes_back_as_it_was_and_the_training_set_nearly(classes: int) -> None:
    train, test = predictions(500, classes, 1), predictions(100, classes, 2)

    data = encode_predictions(train, test, classes=classes)
    found_train, found_test = (decode_predictions(data, split) for split in ("train", "test"))

    assert np.array_equal(found_test.predicted, test.predicted)
    assert np.array_equal(found_test.probability, test.probability)
    assert found_test.true_probability is not None
    assert test.true_probability is not None
    assert np.array_equal(found_test.true_probability, test.true_probability)
    assert np.array_equal(found_train.predicted, train.predicted)
    assert np.abs(found_train.probability - train.probability).max() <= 0.5 / 65_535 + 1e-7
    assert found_train.probability.dtype == np.dtype(np.float32)


def test_certainty_and_impossibility_come_back_exactly() -> None:
    extremes = SplitPredictions(
        predicted=np.array([0, 1]),
        probability=np.array([1, 1], dtype=np.float32),
        true_probability=np.array([1, 0], dtype=np.float32),
    )

    decoded = decode_predictions(encode_predictions(extremes, extremes, classes=2), "train")

    assert decoded.probability.tolist() == [1, 1]
    assert decoded.true_probability is not None
    assert decoded.true_probability.tolist() == [1, 0]


def test_the_predictions_of_a_large_dataset_are_small() -> None:
    train, test = predictions(50_000, 10), predictions(10_000, 10)

    assert len(encode_predictions(train, test, classes=10)) < 341_000


def test_a_file_of_the_test_set_alone_is_read() -> None:
    test = predictions(3, 10)
    older = safetensors.numpy.save(
        {"predicted": test.predicted.astype(np.int16), "probability": test.probability}
    )

    decoded = decode_predictions(older, "test")

    assert np.array_equal(decoded.predicted, test.predicted)
    assert decoded.true_probability is None
    with pytest.raises(NoPredictionsError, match="train images were not stored"):
        decode_predictions(older, "train")


def test_what_is_no_file_of_predictions_is_refused() -> None:
    test = predictions(3, 10)
    uneven = replace(test, probability=test.probability[:2])
    for data in (
        b"",
        b"none",
        safetensors.numpy.save({"predicted": test.predicted}),
        encode_predictions(test, uneven, classes=10),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            decode_predictions(data, "test")
