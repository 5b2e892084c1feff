from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from leadline.models.datasets.contents import SplitName
from leadline.models.predictions import (
    NoPredictionsError,
    SplitPredictions,
    decode_predictions,
    encode_predictions,
)

# Half a step, and the rounding of float32.
RESOLUTION: dict[SplitName, float] = {"test": 0.5 / 65_535 + 1e-7, "train": 0.5 / 255 + 1e-7}

FRACTIONS = st.floats(0, 1, width=32)


def predictions(images: int, classes: int, seed: int = 0) -> SplitPredictions:
    random = np.random.default_rng(seed)
    return SplitPredictions(
        predicted=random.integers(0, classes, images),
        probability=random.random(images, dtype=np.float32),
        true_probability=random.random(images, dtype=np.float32),
    )


def learned(images: int, seed: int) -> SplitPredictions:
    """Predictions of a network of ten classes that gets half of the images right."""
    random = np.random.default_rng(seed)
    labels = np.arange(images) % 10
    logits = random.normal(size=(images, 10)) + 1.7 * (np.arange(10) == labels[:, None])
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return SplitPredictions(
        predicted=softmax.argmax(axis=1),
        probability=softmax.max(axis=1).astype(np.float32),
        true_probability=softmax[np.arange(images), labels].astype(np.float32),
    )


@st.composite
def any_predictions(draw: st.DrawFn, classes: int) -> SplitPredictions:
    count = draw(st.integers(0, 40))
    columns: Any = [draw(arrays(np.float32, count, elements=FRACTIONS)) for _ in range(2)]
    is_right = draw(arrays(np.bool_, count))
    return SplitPredictions(
        predicted=draw(arrays(np.int64, count, elements=st.integers(0, classes - 1))),
        probability=columns[0],
        true_probability=np.where(is_right, *columns) if draw(st.booleans()) else None,
    )


@given(st.data(), st.sampled_from([2, 10, 256, 257, 1_000]))
def test_classes_come_back_as_they_were_and_probabilities_nearly(
    data: st.DataObject, classes: int
) -> None:
    splits: dict[SplitName, SplitPredictions] = {
        "train": data.draw(any_predictions(classes)),
        "test": data.draw(any_predictions(classes)),
    }

    encoded = encode_predictions(splits["train"], splits["test"], classes=classes)

    for name, split in splits.items():
        decoded = decode_predictions(encoded, name)
        assert np.array_equal(decoded.predicted, split.predicted)
        pairs = [(decoded.probability, split.probability)]
        assert (decoded.true_probability is None) == (split.true_probability is None)
        if decoded.true_probability is not None and split.true_probability is not None:
            pairs.append((decoded.true_probability, split.true_probability))
        for actual, expected in pairs:
            assert actual.dtype == np.float32
            assert np.abs(actual - expected).max(initial=0) <= RESOLUTION[name]
            order = np.argsort(expected, kind="stable")
            assert (np.diff(actual[order]) >= 0).all()  # none overtakes another
    again = encode_predictions(splits["train"], splits["test"], classes=classes)
    assert again == encoded


@given(st.binary(max_size=400))
def test_what_is_no_data_of_predictions_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode_predictions(data, "test")


@pytest.mark.parametrize("split", ["train", "test"])
def test_certainty_and_impossibility_come_back_exactly(split: SplitName) -> None:
    extremes = SplitPredictions(
        predicted=np.array([0, 1]),
        probability=np.array([1, 1], dtype=np.float32),
        true_probability=np.array([1, 0], dtype=np.float32),
    )

    decoded = decode_predictions(encode_predictions(extremes, extremes, classes=2), split)

    assert decoded.probability.tolist() == [1, 1]
    assert decoded.true_probability is not None
    assert decoded.true_probability.tolist() == [1, 0]


def test_the_predictions_of_a_large_dataset_take_under_three_bytes_an_image() -> None:
    real, at_random = (
        encode_predictions(make(50_000, 1), make(10_000, 2), classes=10)
        for make in (learned, lambda images, seed: predictions(images, 10, seed))
    )

    assert len(real) < 2.2 * 60_000
    assert len(at_random) < 3.1 * 60_000  # chance cannot be compressed


@pytest.mark.parametrize("has_all", [False, True])
def test_the_files_of_older_versions_are_read(has_all: bool) -> None:
    test, train = predictions(3, 10), predictions(4, 10, 1)
    assert train.true_probability is not None
    tensors: dict[str, Any] = {
        "predicted": test.predicted.astype(np.int16),
        "probability": test.probability,
    }
    if has_all:
        tensors |= {
            "true_probability": test.true_probability,
            "train_predicted": train.predicted.astype(np.uint8),
            "train_probability": np.rint(train.probability * 65_535).astype(np.uint16),
            "train_true_probability": np.rint(train.true_probability * 65_535).astype(np.uint16),
        }
    data = safetensors.numpy.save(tensors)

    decoded = decode_predictions(data, "test")

    assert np.array_equal(decoded.predicted, test.predicted)
    assert np.array_equal(decoded.probability, test.probability)
    if not has_all:
        assert decoded.true_probability is None
        with pytest.raises(NoPredictionsError, match="train images were not stored"):
            decode_predictions(data, "train")
        return
    assert np.array_equal(decoded.true_probability, test.true_probability)  # type: ignore[arg-type]
    decoded = decode_predictions(data, "train")
    assert np.array_equal(decoded.predicted, train.predicted)
    assert np.abs(decoded.probability - train.probability).max() <= 1e-5
    assert decoded.true_probability is not None
    assert np.abs(decoded.true_probability - train.true_probability).max() <= 1e-5


def test_columns_that_do_not_fit_together_are_refused() -> None:
    test = predictions(30, 10)
    assert test.true_probability is not None
    test.true_probability[:9] = test.probability[:9]
    uneven = replace(test, probability=test.probability[:2], true_probability=None)
    whole = safetensors.numpy.load(encode_predictions(None, test, classes=10))
    without = {key: value for key, value in whole.items() if not key.startswith("true_")}
    for data in (
        safetensors.numpy.save({"predicted": test.predicted}),
        encode_predictions(None, uneven, classes=10),
        safetensors.numpy.save(whole | {"true_probability.uint16": whole["probability.uint16"]}),
        safetensors.numpy.save(whole | {"predicted.uint8": np.zeros(5, np.uint8)}),
        safetensors.numpy.save(without | {"true_probability.nonsense": whole["differs.uint8"]}),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            decode_predictions(data, "test")
