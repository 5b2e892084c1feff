"""What a network took the images of a dataset for, as a file beside its weights.

The file is safetensors. Of the test set it has

    predicted               uint8 [N], or int16 where there are more than 256 classes
    probability             float32 [N], the softmax probability of that class
    true_probability        float32 [N], the probability of the class that the image is of

and of the training set, which is several times as large, `train_predicted`
likewise, and `train_probability` and `train_true_probability` as uint16 [N],
in steps of 1/65535. For CIFAR-10 that is 340 kB. Files of version 0.1.0's
first checkpoints have the first two alone.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from leadline.models.datasets.contents import SplitName

_STEPS = 65_535

_FEW_CLASSES = 256


class NoPredictionsError(Exception):
    """The predictions of a split were not kept: the message says which."""


@dataclass(frozen=True)
class SplitPredictions:
    """What a network makes of every image of a split, in the split's order."""

    predicted: npt.NDArray[np.int64]
    """int64 [N]: the class that each image is taken for."""

    probability: npt.NDArray[np.float32]
    """float32 [N]: the softmax probability of that class, in [0, 1]."""

    true_probability: npt.NDArray[np.float32] | None
    """float32 [N]: that of the class that the image is of; None where it was not kept."""


def encode_predictions(train: SplitPredictions, test: SplitPredictions, *, classes: int) -> bytes:
    """Writes the predictions of both splits as a file. Equal predictions make equal files."""
    kind = np.uint8 if classes <= _FEW_CLASSES else np.int16
    tensors: dict[str, npt.NDArray[np.generic]] = {
        "predicted": test.predicted.astype(kind),
        "probability": test.probability,
        "train_predicted": train.predicted.astype(kind),
        "train_probability": _to_steps(train.probability),
    }
    if test.true_probability is not None:
        tensors["true_probability"] = test.true_probability
    if train.true_probability is not None:
        tensors["train_true_probability"] = _to_steps(train.true_probability)
    return bytes(safetensors.numpy.save(tensors))


def decode_predictions(data: bytes, split: SplitName) -> SplitPredictions:
    """Reads back what `encode_predictions` gave of a split.

    Raises:
        NoPredictionsError: the file has none of this split.
        ValueError: it is damaged.
    """
    try:
        tensors = safetensors.numpy.load(data)
    except (SafetensorError, KeyError) as error:
        raise ValueError(str(error)) from error
    prefix = "train_" if split == "train" else ""
    if prefix + "predicted" not in tensors:
        raise NoPredictionsError(f"the predictions of the {split} images were not kept")
    if prefix + "probability" not in tensors:
        raise ValueError(f"it has no {prefix}probability")
    predicted = tensors[prefix + "predicted"].astype(np.int64)
    probability = _to_fractions(tensors[prefix + "probability"])
    true = tensors.get(prefix + "true_probability")
    true_probability = None if true is None else _to_fractions(true)
    for array in (probability, true_probability):
        if array is not None and array.shape != predicted.shape:
            raise ValueError("its arrays are of different lengths")
    return SplitPredictions(predicted, probability, true_probability)


def _to_steps(fractions: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    return np.rint(fractions.astype(np.float64) * _STEPS).clip(0, _STEPS).astype(np.uint16)


def _to_fractions(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    if values.dtype == np.uint16:
        return (values.astype(np.float64) / _STEPS).astype(np.float32)
    return values.astype(np.float32, copy=False)
