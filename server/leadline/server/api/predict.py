"""One `PredictRequest`: what it asks for is read, classified and answered.

Messages of a stream and calls by themselves come here alike.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leadline.server.api.names import parse_example
from leadline.server.api.selectors import to_selector
from leadline.server.errors import InvalidArgumentError
from leadline.server.serving.catalog import Catalog
from leadline.server.serving.classifier import Scores
from leadline.server.serving.examples import FIELD, read_examples
from leadline.server.serving.inputs import (
    InputLimits,
    Pixels,
    PixelType,
    check_count,
    check_files,
    decode_files,
    read_tensor,
)
from leadline.server.serving.predictor import Predictor
from leadline.v1.inference_service_pb2 import (
    DATA_TYPE_FLOAT32,
    DATA_TYPE_UINT8,
    ClassScore,
    DataType,
    Prediction,
    PredictRequest,
    PredictResponse,
)

_MAX_TOP_K = 1_000

# So many are looked through in less time than a thread takes to be woken.
_QUICK_BYTES = 128 * 1024

# Predictions made before other calls have their turn: some milliseconds of work.
_IMAGES_A_TURN = 256

_PIXEL_TYPES = {DATA_TYPE_UINT8: PixelType.UINT8, DATA_TYPE_FLOAT32: PixelType.FLOAT32}


class PredictHandler:
    """Answers `PredictRequest`s."""

    def __init__(
        self, *, catalog: Catalog, predictor: Predictor, limits: InputLimits, dataset_cache: Path
    ) -> None:
        self._catalog = catalog
        self._predictor = predictor
        self._limits = limits
        self._dataset_cache = dataset_cache

    async def handle(
        self,
        request: PredictRequest,
        *,
        caller: str,
        seconds_left: float | None,
        wait_if_full: bool = False,
    ) -> PredictResponse:
        """Classifies the request's images.

        Args:
            request: what to classify, and what by.
            caller: with whom others take turns.
            seconds_left: until the caller's deadline; None without one.
            wait_if_full: whether to wait where too many requests are in work.

        Raises:
            InvalidArgumentError: a field of the request is wrong.
            NotFoundError: no such model, epoch or variant is trained.
            ResourceExhaustedError: too many requests are in work, and it is not
                to wait.
            DeadlineExceededError: the deadline passed before the work began.
            DataLossError: the checkpoint's file is damaged.
        """
        top_k = _top_k(request.top_k)
        selector = to_selector(request, request.WhichOneof("selector"))
        read, run_inline = self._reader(request)
        checkpoint = await self._catalog.resolve(selector)
        scores = await self._predictor.predict(
            checkpoint,
            read,
            seconds_left=seconds_left,
            caller=caller,
            run_inline=run_inline,
            wait_if_full=wait_if_full,
        )
        response = PredictResponse(
            model=checkpoint.name, weights_sha256=checkpoint.epoch.weights_sha256
        )
        class_names = checkpoint.model.started.class_names
        async for part in _in_turns(scores):
            response.predictions.extend(
                _predictions(part, class_names, top_k, include_logits=request.include_logits)
            )
        return response

    def _reader(self, request: PredictRequest) -> tuple[Callable[[], Pixels], bool]:
        """What makes the pixels, and whether it takes some microseconds only."""
        match request.WhichOneof("input"):
            case "encoded":
                files = request.encoded.images
                check_files(files, self._limits)
                return lambda: decode_files(files, self._limits), False
            case "tensor":
                tensor = request.tensor
                pixel_type = _pixel_type(tensor.data_type)
                read = partial(read_tensor, pixel_type, tensor.shape, tensor.data, self._limits)
                return read, len(tensor.data) <= _QUICK_BYTES
            case "examples":
                names = request.examples.names
                check_count(FIELD, len(names), self._limits)
                examples = [
                    parse_example(name, field=f"{FIELD}[{index}]")
                    for index, name in enumerate(names)
                ]
                return lambda: read_examples(examples, self._dataset_cache), False
            case _:
                raise InvalidArgumentError.of("input", "is unset: set encoded, tensor or examples")


def _pixel_type(number: int) -> PixelType:
    pixel_type = _PIXEL_TYPES.get(DataType.ValueType(number))
    if pixel_type is None:
        raise InvalidArgumentError.of(
            "tensor.data_type",
            f"is {number}, but must be DATA_TYPE_UINT8 or DATA_TYPE_FLOAT32",
        )
    return pixel_type


def _top_k(requested: int) -> int:
    if not 0 <= requested <= _MAX_TOP_K:
        raise InvalidArgumentError.of(
            "top_k", f"must be from 0, which means 1, to {_MAX_TOP_K}, is {requested}"
        )
    return requested or 1


async def _in_turns(scores: Scores) -> AsyncIterator[Scores]:
    """The scores in parts, between which other calls have their turn."""
    for start in range(0, len(scores.logits), _IMAGES_A_TURN):
        if start:
            await asyncio.sleep(0)
        part = slice(start, start + _IMAGES_A_TURN)
        yield Scores(scores.logits[part], scores.probabilities[part])


def _predictions(
    scores: Scores, class_names: Sequence[str], top_k: int, *, include_logits: bool
) -> list[Prediction]:
    ranks = _ranks(scores.logits, top_k)
    # As lists at once: numpy's own numbers are slow to make and to read.
    probabilities = np.take_along_axis(scores.probabilities, ranks, axis=1).tolist()
    logits: Iterable[Sequence[float]] = scores.logits.tolist() if include_logits else repeat(())
    return [
        _prediction(*one, class_names)
        for one in zip(ranks.tolist(), probabilities, logits, strict=False)
    ]


def _ranks(logits: NDArray[np.float32], top_k: int) -> NDArray[np.intp]:
    """The indices of the classes, the most probable first; of equals the lower first."""
    if top_k == 1:
        best: NDArray[np.intp] = logits.argmax(axis=1, keepdims=True)
        return best
    return np.argsort(-logits, axis=1, kind="stable")[:, :top_k]


def _prediction(
    classes: Sequence[int],
    probabilities: Sequence[float],
    logits: Sequence[float],
    class_names: Sequence[str],
) -> Prediction:
    best = classes[0]
    return Prediction(
        class_index=best,
        class_name=class_names[best],
        probability=probabilities[0],
        top_k=[
            ClassScore(class_index=index, class_name=class_names[index], probability=probability)
            for index, probability in zip(classes, probabilities, strict=True)
        ],
        logits=logits,
    )
