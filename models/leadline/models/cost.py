"""What training costs, in multiply-adds. This module does not import torch."""

from leadline.models._shapes import HALVE, HIDDEN, INNER, TAIL, WIDEN, Convolution
from leadline.models.spec import TrainingSpec


def training_work(spec: TrainingSpec, *, images: int, classes: int) -> int:
    """Returns the work of a job: epochs x images x the multiply-adds of a forward pass.

    A step takes about three times as much, because of its backward pass.

    Args:
        spec: what is trained.
        images: the images of the training set.
        classes: the classes of the dataset.
    """
    convolutions = (WIDEN, HALVE, *[INNER] * (spec.blocks * spec.block_convolutions), TAIL)
    linear = HIDDEN * (TAIL.output_vectors + classes)
    return spec.epochs * images * (sum(map(_multiply_adds, convolutions)) + linear)


def _multiply_adds(convolution: Convolution) -> int:
    return convolution.weights * convolution.output_size**2
