"""Predictions by both clients, over a real server."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from leadline.client import (
    Client,
    InvalidArgumentError,
    Model,
    NotFoundError,
    Predictions,
    _batches,
)
from leadline.client._batches import BatchLimits
from support.servers import read_images


@pytest.fixture(scope="module")
def pixels(test_images: list[Path]) -> Any:
    return read_images(test_images)


def probabilities(predictions: Predictions) -> list[float]:
    return [prediction.probability for prediction in predictions]


def test_every_kind_of_input_gives_the_same_predictions(
    client: Client, model: Model, test_images: list[Path], pixels: Any
) -> None:
    expected = client.predict(test_images, model=model.name)
    normalised = (pixels.transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32)
    for images in (
        [path.read_bytes() for path in test_images],
        [Pillow.open(path) for path in test_images],
        pixels,
        normalised,
    ):
        predictions = client.predict(images, model=model.name)
        assert predictions.class_indices == expected.class_indices
        assert probabilities(predictions) == pytest.approx(probabilities(expected), abs=1e-5)


def test_predictions_agree_with_the_reported_accuracy(
    client: Client, model: Model, test_images: list[Path]
) -> None:
    predictions = client.predict(test_images, model=model.name)
    right = sum(
        name == path.parent.name
        for name, path in zip(predictions.class_names, test_images, strict=True)
    )
    assert right == round(model.best_test_accuracy * len(test_images))
    assert predictions.model == f"{model.name}/epochs/{model.best_epoch}"
    assert predictions.weights_sha256 == model.epochs[model.best_epoch - 1].weights_sha256


def test_wrong_predictions_are_those_that_are_listed(
    client: Client, model: Model, test_images: list[Path]
) -> None:
    predictions = client.predict(test_images, model=model.name)
    wrong = {
        index
        for index, (name, path) in enumerate(zip(predictions.class_names, test_images, strict=True))
        if name != path.parent.name
    }
    assert {example.index for example in client.misclassified(model=model.name)} == wrong


def test_the_most_probable_classes_are_named(
    client: Client, model: Model, test_images: list[Path]
) -> None:
    (prediction,) = client.predict(test_images[0], model=model.name, top_k=3)
    assert len(prediction.top_k) == 3
    assert prediction.top_k[0].class_name == prediction.class_name


def test_an_epoch_or_a_variant_answers_where_it_is_named(
    client: Client, model: Model, test_images: list[Path]
) -> None:
    assert client.predict(test_images[0], model=model.epochs[0].name).model == model.epochs[0].name
    by_variant = client.predict(test_images[0], dataset="tiny", blocks=1, batch_norm=True)
    assert by_variant.model.startswith("models/")


def test_predictions_are_a_sequence(client: Client, model: Model, test_images: list[Path]) -> None:
    predictions = client.predict(test_images[:3], model=model.name)
    assert len(predictions) == 3
    assert [one.class_name for one in predictions] == predictions.class_names
    assert predictions[0] == next(iter(predictions))
    assert list(predictions[1:]) == list(predictions)[1:]


def test_requests_after_the_first_are_answered_by_the_same_checkpoint(
    client: Client, model: Model, test_images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = client.predict(test_images, model=model.name)
    monkeypatch.setattr(_batches, "CALL_LIMITS", BatchLimits(images=7, bytes=1 << 20))
    divided = client.predict(test_images, model=model.name)
    assert divided.class_indices == whole.class_indices
    assert divided.model == whole.model


def test_a_corrupt_image_is_named_by_its_place_among_all(
    client: Client, model: Model, test_images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_batches, "CALL_LIMITS", BatchLimits(images=4, bytes=1 << 20))
    images: list[Path | bytes] = [*test_images[:9], b"no image", test_images[10]]
    with pytest.raises(InvalidArgumentError) as caught:
        client.predict(images, model=model.name)
    assert [violation.field for violation in caught.value.violations] == ["images[9]"]


@pytest.mark.parametrize("image", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_an_empty_or_corrupt_image_is_refused(client: Client, model: Model, image: bytes) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client.predict(image, model=model.name)
    assert caught.value.violations[0].field == "images[0]"


def test_an_image_larger_than_the_server_allows_is_refused(client: Client, model: Model) -> None:
    buffer = io.BytesIO()
    Pillow.new("1", (8000, 8000)).save(buffer, format="PNG")
    with pytest.raises(InvalidArgumentError) as caught:
        client.predict(buffer.getvalue(), model=model.name)
    assert caught.value.violations[0].field == "images[0]"


def test_a_model_that_is_not_there_is_an_error(client: Client, test_images: list[Path]) -> None:
    with pytest.raises(NotFoundError):
        client.predict(test_images[0], model="nobody")
    with pytest.raises(NotFoundError):
        client.predict(test_images[0], dataset="tiny", blocks=63)


def test_what_answers_must_be_named(client: Client, test_images: list[Path]) -> None:
    with pytest.raises(InvalidArgumentError, match="either a model or a variant"):
        client.predict(test_images[0])
