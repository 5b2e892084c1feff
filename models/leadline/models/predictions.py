"""A network's predictions for the images of a dataset, as a file beside its weights.

The file is safetensors. For the test set it has

    predicted               uint8 [N], or int16 with more than 256 classes
    probability             float32 [N], the softmax probability of that class
    true_probability        float32 [N], the probability of the true class

The training set is several times as large. It has `train_predicted` of the same
type, and `train_probability` and `train_true_probability` as uint16 [N], in steps
of 1/65535. For CIFAR-10 the file has 340 kB. Files of version 0.1.0's first
checkpoints have only `predicted` and `probability`.
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


def encode_predictions(train: SplitPredictions, test: SplitPredictions, *, classes: int) -> bytes:
    """Encodes the predictions of both splits. Equal predictions give equal bytes."""
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
    """Decodes the predictions of a split.

    Raises:
        NoPredictionsError: the file has no predictions of this split.
        ValueError: the file is damaged.
    """
    try:
        tensors = safetensors.numpy.load(data)
    except (SafetensorError, KeyError) as error:
        raise ValueError(str(error)) from error
    prefix = "train_" if split == "train" else ""
    if prefix + "predicted" not in tensors:
        raise NoPredictionsError(f"the predictions of the {split} images were not stored")
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
