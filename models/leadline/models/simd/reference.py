"""NumPy twins of the kernels: the function NAME defines the results of `emit_NAME`.

They are written for readability, and compute in float64. A test compares every kernel
with its twin. Axes: images [inputs, size, size, lanes]; grad_output of a convolution
[outputs, output_size, output_size, lanes]; weights [kernel, kernel, inputs, outputs];
values [channels, area, lanes]; mask [lanes], 1 if a lane holds an image, else 0. Other
arguments of a batch norm are [channels] unless a docstring gives their axes.
"""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from leadline.models._shapes import EPSILON, Convolution

Array = NDArray[np.floating]


def scaling(pixels: NDArray[np.uint8]) -> Array:
    """Returns [channels, area, lanes] in [-1, 1], for pixels [lanes, area, channels]."""
    return np.asarray(pixels.T / np.float64(127.5) - 1)


def convolution(
    shape: Convolution,
    images: Array,
    weights: Array,
    biases: Array,
    addend: Array | float = 0.0,
    *,
    relu: bool = False,
) -> Array:
    """Returns [outputs, output_size, output_size, lanes]; an addend has the same shape."""
    result = biases[:, np.newaxis, np.newaxis, np.newaxis] + np.float64(addend)
    for down, right, window in _windows(shape, _padded(shape, images)):
        result = result + np.einsum("ihwl,io->ohwl", window, weights[down, right])
    return np.maximum(result, 0) if relu else result


def input_gradient(
    shape: Convolution, grad_output: Array, weights: Array, addend: Array | float = 0.0
) -> Array:
    """Returns [inputs, size, size, lanes]; weights are [kernel, kernel, outputs, inputs]."""
    lanes, end = grad_output.shape[-1], shape.padding + shape.size
    padded = _padded(shape, np.zeros((shape.inputs, shape.size, shape.size, lanes)))
    for down, right, window in _windows(shape, padded):
        window[...] += np.einsum("ohwl,oi->ihwl", grad_output, weights[down, right])
    return padded[:, shape.padding : end, shape.padding : end] + addend


def weight_gradient(shape: Convolution, images: Array, grad_output: Array) -> Array:
    """Returns [kernel, kernel, inputs, outputs]."""
    result = np.zeros((shape.kernel, shape.kernel, shape.inputs, shape.outputs))
    for down, right, window in _windows(shape, _padded(shape, images)):
        result[down, right] = np.einsum("ihwl,ohwl->io", window, grad_output)
    return result


def statistics(values: Array, mask: Array) -> Array:
    """Returns [channels, 2]: the mean, and the sum of the squared deviations."""
    held = values[:, :, mask == 1].reshape(len(values), -1).astype(np.float64)
    return np.stack([held.mean(1), held.var(1) * held.shape[1]], axis=1)


def statistics_merge(
    statistics: Array, counts: Array, weights: Array, biases: Array, *, area: int
) -> Array:
    """Returns mean, biased variance, scale and shift, [4, channels], from [groups, channels, 2]."""
    numbers = counts[:, np.newaxis] * area
    means, squares = np.moveaxis(statistics, 2, 0)
    mean = (numbers * means).sum(0) / numbers.sum()
    variance = (squares + numbers * (means - mean) ** 2).sum(0) / numbers.sum()
    scale = weights / np.sqrt(variance + EPSILON)
    return np.stack([mean, variance, scale, biases - mean * scale])


def normalization(values: Array, scale_shift: Array, addend: Array | float = 0.0) -> Array:
    """Returns the ReLU of scaled and shifted values; scale_shift is [2, channels]."""
    scale, shift = np.expand_dims(scale_shift.astype(np.float64), (2, 3))
    result: Array = np.maximum(values * scale + shift + addend, 0)
    return result


def relu_gradient(
    grad_output: Array, outputs: Array, inputs: Array, means: Array
) -> tuple[Array, Array]:
    """Returns the gradient, and [channels, 2]: the sums of it and of it times the deviations."""
    gradient = np.where(outputs > 0, grad_output, np.float64(0))
    products = gradient * (inputs - means[:, np.newaxis, np.newaxis])
    return gradient, np.stack([gradient.sum((1, 2)), products.sum((1, 2))], axis=1)


def gradient_sums_merge(sums: Array, numbers: float, variances: Array, weights: Array) -> Array:
    """Returns [5, channels] from sums [groups, channels, 2]: see `emit_gradient_sums_merge`."""
    gradient, product = sums.sum(0, dtype=np.float64).T
    deviation = np.sqrt(variances + np.float64(EPSILON))
    scale = weights / deviation
    of_distance = scale / numbers * product / deviation**2
    return np.stack([product / deviation, gradient, scale, of_distance, scale / numbers * gradient])


def normalization_gradient(
    grad_output: Array, inputs: Array, means: Array, factors: Array, mask: Array
) -> Array:
    """Returns the gradient of a batch norm's inputs; factors are [3, channels]."""
    of_gradient, of_distance, of_one = np.expand_dims(factors.astype(np.float64), (2, 3))
    distance = inputs - np.expand_dims(means.astype(np.float64), (1, 2))
    result: Array = (grad_output * of_gradient - distance * of_distance - of_one) * mask
    return result


def channel_sums(values: Array) -> Array:
    """Returns the sum of each channel."""
    sums: Array = values.sum((1, 2), dtype=np.float64)
    return sums


def _padded(shape: Convolution, images: Array) -> Array:
    border = (shape.padding, shape.padding)
    return np.pad(np.float64(images), ((0, 0), border, border, (0, 0)))


def _windows(shape: Convolution, padded: Array) -> Iterator[tuple[int, int, Array]]:
    """Yields each tap, and a view of the pixels that it multiplies: one for each result."""
    reach, step = shape.stride * (shape.output_size - 1) + 1, shape.stride
    for down, right in itertools.product(range(shape.kernel), repeat=2):
        yield down, right, padded[:, down : down + reach : step, right : right + reach : step]
