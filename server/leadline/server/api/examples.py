"""What the requests for images have in common, and the images that answer them."""

from collections.abc import Sequence
from typing import TypedDict

from leadline.models.datasets import SplitName
from leadline.server.errors import InvalidArgumentError, shorten
from leadline.server.inspection.examples import Example, ImageFormat, Picture
from leadline.v1 import inspection_service_pb2 as pb

_SPLITS: dict[int, SplitName] = {
    pb.SPLIT_UNSPECIFIED: "test",
    pb.SPLIT_TEST: "test",
    pb.SPLIT_TRAIN: "train",
}

_IMAGE_FORMATS: dict[int, ImageFormat] = {
    pb.IMAGE_FORMAT_UNSPECIFIED: ImageFormat.PNG,
    pb.IMAGE_FORMAT_PNG: ImageFormat.PNG,
    pb.IMAGE_FORMAT_RAW: ImageFormat.RAW,
    pb.IMAGE_FORMAT_NONE: ImageFormat.NONE,
}

SPLIT_VALUES: dict[SplitName, pb.Split.ValueType] = {
    "test": pb.SPLIT_TEST,
    "train": pb.SPLIT_TRAIN,
}
"""The contract's value of each split."""


def unknown_value(field: str, value: int) -> InvalidArgumentError:
    """The error of an enum's value that is none of those there are."""
    return InvalidArgumentError.of(field, f"is {value}, which this server does not know")


def to_split(value: int) -> SplitName:
    """The split that a request is about.

    Raises:
        InvalidArgumentError: there is no such split.
    """
    if value not in _SPLITS:
        raise unknown_value("split", value)
    return _SPLITS[value]


def to_image_format(value: int) -> ImageFormat:
    """How a request wants its images.

    Raises:
        InvalidArgumentError: there is no such format.
    """
    if value not in _IMAGE_FORMATS:
        raise unknown_value("image_format", value)
    return _IMAGE_FORMATS[value]


def to_class(field: str, name: str, class_names: Sequence[str]) -> int | None:
    """The index of the class that a request names; None where it names none.

    Raises:
        InvalidArgumentError: there is no class of this name.
    """
    if not name:
        return None
    if name not in class_names:
        known = ", ".join(class_names)
        raise InvalidArgumentError.of(
            field, f"is {shorten(name)!r}, but the model's classes are {known}"
        )
    return class_names.index(name)


def example_message(example: Example, class_names: Sequence[str]) -> pb.Example:
    """An example as it is sent."""
    return pb.Example(
        **picture_fields(example.picture),
        true_class_index=example.true_class,
        true_class_name=class_names[example.true_class],
        predicted_class_index=example.predicted_class,
        predicted_class_name=class_names[example.predicted_class],
        probability=example.probability,
    )


class PictureFields(TypedDict):
    """The fields that every message has that shows an image."""

    name: str
    index: int
    png: bytes
    pixels: bytes


def picture_fields(picture: Picture) -> PictureFields:
    """An image as every message has it that shows one."""
    return PictureFields(
        name=picture.ref.name,
        index=picture.ref.index,
        png=picture.png,
        pixels=picture.pixels,
    )
