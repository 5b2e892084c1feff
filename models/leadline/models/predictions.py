"""A network's predictions for the images of a dataset, in under three bytes per image.

The data is safetensors. It has these columns for the test set, and those of the training
set under the same names after `train_`:

    predicted           [N]: the class, uint8, or int16 with more than 256 classes
    probability         [N]: its softmax probability, in steps of 1/maximum of the type
    differs             [N], packed to bits: whether the true class has another probability
    true_probability    the probability of the true class, only where `differs` is set

A probability of the test set is uint16, exact to 1/131070. The training set is several
times as large, so its probabilities are uint8, exact to 1/510. zlib compresses each
column, and the name of its tensor ends with its type, such as `train_predicted.uint8`.

Older files have no column `differs`, and columns that are not compressed: whole
probabilities, float32 or uint16. Files of version 0.1.0's first checkpoints have only
`predicted` and `probability` of the test set.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from leadline.models.datasets.contents import SplitName

_FEW_CLASSES = 256

_Column = npt.NDArray[np.generic]
_Tensors = Mapping[str, _Column]


class NoPredictionsError(Exception):
    """The predictions of a split were not stored: the message names the split."""


@dataclass(frozen=True)
class SplitPredictions:
    """The predictions of a network for a split, in the split's order."""

    predicted: npt.NDArray[np.int64]
    """int64 [N]: the predicted class of each image."""

    probability: npt.NDArray[np.float32]
    """float32 [N]: the softmax probability of that class, in [0, 1]."""

    true_probability: npt.NDArray[np.float32] | None
    """float32 [N]: the probability of the true class; None if it was not stored."""


def encode_predictions(
    train: SplitPredictions | None, test: SplitPredictions, *, classes: int
) -> bytes:
    """Encodes the predictions of both splits. Equal predictions give equal bytes.

    `train` is None only for checkpoints of a version that did not store it.
    """
    columns = _columns(test, classes, np.uint16, "")
    if train is not None:
        columns |= _columns(train, classes, np.uint8, "train_")
    return bytes(
        safetensors.numpy.save(
            {
                f"{name}.{column.dtype.name}": np.frombuffer(_compress(column), np.uint8)
                for name, column in columns.items()
            }
        )
    )


def decode_predictions(data: bytes, split: SplitName) -> SplitPredictions:
    """Decodes the predictions of a split.

    Raises:
        NoPredictionsError: the data has no predictions of this split.
        ValueError: the data is damaged.
    """
    try:
        tensors = safetensors.numpy.load(data)
    except (SafetensorError, KeyError) as error:
        raise ValueError(str(error)) from error
    prefix = "train_" if split == "train" else ""
    try:
        read = _decompressed(tensors, prefix)
    except (zlib.error, TypeError) as error:
        raise ValueError(str(error)) from error
    if "predicted" not in read:
        raise NoPredictionsError(f"the predictions of the {split} images were not stored")
    if "probability" not in read:
        raise ValueError(f"it has no {prefix}probability")
    predicted = read["predicted"].astype(np.int64)
    probability = _to_fractions(read["probability"])
    true_probability = _true_probability(read, probability)
    for array in (probability, true_probability):
        if array is not None and array.shape != predicted.shape:
            raise ValueError("its columns are of different lengths")
    return SplitPredictions(predicted, probability, true_probability)


def _columns(
    split: SplitPredictions, classes: int, steps: type[np.unsignedinteger], prefix: str
) -> dict[str, _Column]:
    predicted = split.predicted.astype(np.uint8 if classes <= _FEW_CLASSES else np.int16)
    probability = _to_steps(split.probability, steps)
    columns: dict[str, _Column] = {"predicted": predicted, "probability": probability}
    if split.true_probability is not None:
        true_probability = _to_steps(split.true_probability, steps)
        differs = true_probability != probability
        columns |= {"differs": np.packbits(differs), "true_probability": true_probability[differs]}
    return {prefix + name: column for name, column in columns.items()}


def _compress(column: _Column) -> bytes:
    # Classes of a sorted dataset make runs, and nothing else repeats: looking for longer
    # matches takes five times as long, and finds none.
    compressor = zlib.compressobj(strategy=zlib.Z_RLE)
    return compressor.compress(column.tobytes()) + compressor.flush()


def _decompressed(tensors: _Tensors, prefix: str) -> dict[str, _Column]:
    """The columns of a split by their names, whichever version has written them."""
    columns = {}
    for key, values in tensors.items():
        name, _, kind = key.partition(".")
        if name.startswith("train_") == bool(prefix):
            column = np.frombuffer(zlib.decompress(values.tobytes()), kind) if kind else values
            columns[name.removeprefix(prefix)] = column
    return columns


def _true_probability(
    columns: Mapping[str, _Column], probability: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32] | None:
    if "true_probability" not in columns:
        return None
    stored = _to_fractions(columns["true_probability"])
    if "differs" not in columns:
        return stored
    differs = np.unpackbits(columns["differs"].astype(np.uint8), count=len(probability))
    if np.count_nonzero(differs) != len(stored):
        raise ValueError("its columns are of different lengths")
    true_probability = probability.copy()
    true_probability[differs.astype(np.bool_)] = stored
    return true_probability


def _to_steps(
    fractions: npt.NDArray[np.float32], kind: type[np.unsignedinteger]
) -> npt.NDArray[np.unsignedinteger]:
    steps = np.iinfo(kind).max
    return np.rint(fractions.astype(np.float64) * steps).clip(0, steps).astype(kind)


def _to_fractions(values: _Column) -> npt.NDArray[np.float32]:
    fractions = values.astype(np.float64)
    if values.dtype.kind == "u":
        fractions /= np.iinfo(values.dtype.name).max
    return fractions.astype(np.float32)
