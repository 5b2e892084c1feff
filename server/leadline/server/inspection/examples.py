"""Images of listings, with their predictions."""

from dataclasses import dataclass
from enum import StrEnum

from leadline.models.datasets import SplitName
from leadline.models.images import encode_png
from leadline.server.inspection.answers import Answers
from leadline.server.serving.examples import ExampleRef


class ImageFormat(StrEnum):
    """The format of images in responses."""

    PNG = "png"
    RAW = "raw"  # uint8 HWC [32, 32, 3], RGB
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class ExampleQuery:
    """Selects the examples of a listing.

    Attributes:
        split: the split of the images.
        true_class: only images labelled with this class; None for any.
        image_format: the format of images in the response.
    """

    split: SplitName = "test"
    true_class: int | None = None
    image_format: ImageFormat = ImageFormat.PNG


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image of a dataset in the requested format; the fields of other formats are empty.

    Attributes:
        aspect_ratio: its original width divided by its height.
    """

    ref: ExampleRef
    aspect_ratio: float
    png: bytes
    pixels: bytes


@dataclass(frozen=True, kw_only=True)
class Example:
    """An image and its prediction."""

    picture: Picture
    true_class: int
    predicted_class: int
    probability: float


def picture_of(answers: Answers, index: int, image_format: ImageFormat) -> Picture:
    """The image at an index of the split."""
    image, ratios = answers.images[index], answers.aspect_ratios
    return Picture(
        ref=answers.example(index),
        aspect_ratio=1.0 if ratios is None else float(ratios[index]),
        png=encode_png(image) if image_format is ImageFormat.PNG else b"",
        pixels=image.tobytes() if image_format is ImageFormat.RAW else b"",
    )


def example_of(answers: Answers, index: int, image_format: ImageFormat) -> Example:
    """An image and its prediction."""
    return Example(
        picture=picture_of(answers, index, image_format),
        true_class=int(answers.labels[index]),
        predicted_class=int(answers.predicted[index]),
        probability=float(answers.probability[index]),
    )
