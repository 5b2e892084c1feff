"""The results of predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from leadline.client._errors import InvalidArgumentError
from leadline.v1.inference_service_pb2 import Prediction


@dataclass(frozen=True, kw_only=True)
class Predictions(Sequence[Prediction]):
    """A `Prediction` for each image, in the order of the images.

    Attributes:
        predictions: the predictions.
        model: the checkpoint that predicted, "models/{id}/epochs/{epoch}".
        weights_sha256: the SHA-256 of the weights file, in hexadecimal.
    """

    predictions: tuple[Prediction, ...]
    model: str
    weights_sha256: str

    def __len__(self) -> int:
        return len(self.predictions)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Prediction]: ...

    def __getitem__(self, index: int | slice) -> Prediction | Sequence[Prediction]:
        return self.predictions[index]

    @property
    def class_indices(self) -> list[int]:
        """The index of each image's most probable class."""
        return [prediction.class_index for prediction in self.predictions]

    @property
    def class_names(self) -> list[str]:
        """The name of each image's most probable class."""
        return [prediction.class_name for prediction in self.predictions]


@dataclass(frozen=True, kw_only=True)
class ImageFailure:
    """The result of `predict_stream` for an image that cannot be classified.

    Attributes:
        index: the index of the image in the stream.
        error: the cause: its file cannot be read (OSError), or it is not a
            valid image (InvalidArgumentError).
    """

    index: int
    error: OSError | InvalidArgumentError

    def __str__(self) -> str:
        if isinstance(self.error, OSError):
            return self.error.strerror or str(self.error)
        return "; ".join(violation.description for violation in self.error.violations) or str(
            self.error
        )
