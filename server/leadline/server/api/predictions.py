"""Predictions: request to images, scores to messages."""

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from leadline.server.api.names import parse_example
from leadline.server.errors import InvalidArgumentError
from leadline.server.services.predictions import ImageInput, PredictionService
from leadline.server.serving.classifier import Scores
from leadline.server.serving.examples import FIELD
from leadline.server.serving.inputs import (
    PixelType,
    check_count,
    check_files,
    decode_files,
    read_tensor,
)
from leadline.v1 import inference_service_pb2 as pb

_MAX_TOP_K = 1_000

# Checking a tensor of up to this many bytes takes less time than waking a thread.
_INLINE_BYTES = 128 * 1024

# Images whose predictions are built before the event loop serves other calls:
# a few milliseconds of work.
_IMAGES_PER_TURN = 256

_PIXEL_TYPES = {pb.DATA_TYPE_UINT8: PixelType.UINT8, pb.DATA_TYPE_FLOAT32: PixelType.FLOAT32}


def to_top_k(requested: int) -> int:
    """How many classes to list for each image.

    Raises:
        InvalidArgumentError: the number is out of range.
    """
    if not 0 <= requested <= _MAX_TOP_K:
        raise InvalidArgumentError.of(
            "top_k", f"must be from 0, which means 1, to {_MAX_TOP_K}, is {requested}"
        )
    return requested or 1


def to_image_input(request: pb.PredictRequest, predictions: PredictionService) -> ImageInput:
    """The images of a request.

    Raises:
        InvalidArgumentError: a field is invalid; images are not decoded yet.
    """
    limits = predictions.limits
    match request.WhichOneof("input"):
        case "encoded":
            files = request.encoded.images
            check_files(files, limits)
            return ImageInput(len(files), partial(decode_files, files, limits))
        case "tensor":
            tensor = request.tensor
            pixel_type = _pixel_type(tensor.data_type)
            decode = partial(read_tensor, pixel_type, tensor.shape, tensor.data, limits)
            count = tensor.shape[0] if tensor.shape else 0
            return ImageInput(count, decode, run_inline=len(tensor.data) <= _INLINE_BYTES)
        case "examples":
            names = request.examples.names
            check_count(FIELD, len(names), limits)
            return predictions.example_input(
                [parse_example(name, field=f"{FIELD}[{index}]") for index, name in enumerate(names)]
            )
        case _:
            raise InvalidArgumentError.of("input", "is unset: set encoded, tensor or examples")


async def add_predictions(
    response: pb.PredictResponse,
    scores: Scores,
    class_names: Sequence[str],
    top_k: int,
    *,
    include_logits: bool,
) -> None:
    """Appends a prediction for each image, yielding to the event loop in between."""
    for start in range(0, len(scores.logits), _IMAGES_PER_TURN):
        if start:
            await asyncio.sleep(0)
        part = slice(start, start + _IMAGES_PER_TURN)
        part_scores = Scores(scores.logits[part], scores.probabilities[part])
        response.predictions.extend(
            _predictions(part_scores, class_names, top_k, include_logits=include_logits)
        )


def _pixel_type(number: int) -> PixelType:
    pixel_type = _PIXEL_TYPES.get(pb.DataType.ValueType(number))
    if pixel_type is None:
        raise InvalidArgumentError.of(
            "tensor.data_type",
            f"is {number}, but must be DATA_TYPE_UINT8 or DATA_TYPE_FLOAT32",
        )
    return pixel_type


def _predictions(
    scores: Scores, class_names: Sequence[str], top_k: int, *, include_logits: bool
) -> list[pb.Prediction]:
    ranks = _ranks(scores.logits, top_k)
    # Converts whole arrays to lists, because NumPy's scalars are slow.
    probabilities = np.take_along_axis(scores.probabilities, ranks, axis=1).tolist()
    logits: Iterable[Sequence[float]] = scores.logits.tolist() if include_logits else repeat(())
    return [
        _prediction(*row, class_names)
        for row in zip(ranks.tolist(), probabilities, logits, strict=False)
    ]


def _ranks(logits: NDArray[np.float32], top_k: int) -> NDArray[np.intp]:
    """The indices of the classes, the most probable first; the lower first among equals."""
    if top_k == 1:
        best: NDArray[np.intp] = logits.argmax(axis=1, keepdims=True)
        return best
    return np.argsort(-logits, axis=1, kind="stable")[:, :top_k]


def _prediction(
    classes: Sequence[int],
    probabilities: Sequence[float],
    logits: Sequence[float],
    class_names: Sequence[str],
) -> pb.Prediction:
    best = classes[0]
    return pb.Prediction(
        class_index=best,
        class_name=class_names[best],
        probability=probabilities[0],
        top_k=[
            pb.ClassScore(class_index=index, class_name=class_names[index], probability=probability)
            for index, probability in zip(classes, probabilities, strict=True)
        ],
        logits=logits,
    )
