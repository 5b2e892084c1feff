"""NumPy twins of the kernels: what each must compute, in the same layouts.

They are written to be read, and computed in float64. A test compares every kernel with
its twin; `lanes` stands for the images of a group.
"""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from leadline.models._shapes import EPSILON, Convolution

Array = NDArray[np.floating]


def convolution(
    shape: Convolution,
    images: Array,
    weights: Array,
    biases: Array,
    addend: Array | float = 0.0,
    *,
    relu: bool = False,
) -> Array:
    """Returns what `emit_convolution` computes, [outputs, output_size, output_size, lanes].

    Args:
        shape: of the convolution.
        images: [inputs, size, size, lanes].
        weights: [kernel, kernel, inputs, outputs].
        biases: [outputs].
        addend: of the result, in its shape.
        relu: whether a ReLU follows.
    """
    result = biases[:, np.newaxis, np.newaxis, np.newaxis] + np.float64(addend)
    for down, right, window in _windows(shape, _padded(shape, images)):
        result = result + np.einsum("ihwl,io->ohwl", window, weights[down, right])
    return np.maximum(result, 0) if relu else result


def input_gradient(
    shape: Convolution, grad_output: Array, weights: Array, addend: Array | float = 0.0
) -> Array:
    """Returns what `emit_input_gradient` computes, [inputs, size, size, lanes].

    Args:
        shape: of the convolution.
        grad_output: [outputs, output_size, output_size, lanes].
        weights: transposed, [kernel, kernel, outputs, inputs].
        addend: of the result, in its shape.
    """
    lanes, end = grad_output.shape[-1], shape.padding + shape.size
    padded = _padded(shape, np.zeros((shape.inputs, shape.size, shape.size, lanes)))
    for down, right, window in _windows(shape, padded):
        window[...] += np.einsum("ohwl,oi->ihwl", grad_output, weights[down, right])
    return padded[:, shape.padding : end, shape.padding : end] + addend


def weight_gradient(shape: Convolution, images: Array, grad_output: Array) -> Array:
    """Returns what `emit_weight_gradient` computes, [kernel, kernel, inputs, outputs].

    Args:
        shape: of the convolution.
        images: [inputs, size, size, lanes].
        grad_output: [outputs, output_size, output_size, lanes].
    """
    result = np.zeros((shape.kernel, shape.kernel, shape.inputs, shape.outputs))
    for down, right, window in _windows(shape, _padded(shape, images)):
        result[down, right] = np.einsum("ihwl,ohwl->io", window, grad_output)
    return result


def statistics(values: Array, mask: Array) -> Array:
    """Returns what `emit_statistics` computes, [channels, 2].

    Args:
        values: [channels, area, lanes].
        mask: [lanes], 1 where a lane holds an image and 0 elsewhere.
    """
    held = values[:, :, mask == 1].reshape(len(values), -1).astype(np.float64)
    return np.stack([held.mean(1), held.var(1) * held.shape[1]], axis=1)


def statistics_merge(
    statistics: Array, counts: Array, weights: Array, biases: Array, *, area: int
) -> Array:
    """Returns what `emit_statistics_merge` computes, [4, channels].

    Args:
        statistics: [groups, channels, 2], a mean and a sum of squared distances from it.
        counts: [groups], the images in each.
        weights: of the batch norm, [channels].
        biases: of the batch norm, [channels].
        area: pixels of a channel.
    """
    numbers = counts[:, np.newaxis] * area
    means, squares = np.moveaxis(statistics, 2, 0)
    mean = (numbers * means).sum(0) / numbers.sum()
    variance = (squares + numbers * (means - mean) ** 2).sum(0) / numbers.sum()
    scale = weights / np.sqrt(variance + EPSILON)
    return np.stack([mean, variance, scale, biases - mean * scale])


def normalization(values: Array, scale_shift: Array, addend: Array | float = 0.0) -> Array:
    """Returns what `emit_normalization` computes, [channels, area, lanes].

    Args:
        values: [channels, area, lanes].
        scale_shift: [2, channels].
        addend: in the shape of the values.
    """
    scale, shift = np.float64(scale_shift)[..., np.newaxis, np.newaxis]
    return np.maximum(values * scale + shift + addend, 0)


def relu_gradient(
    grad_output: Array, outputs: Array, inputs: Array, means: Array
) -> tuple[Array, Array]:
    """Returns what `emit_relu_gradient` computes: the gradient, and the sums [channels, 2].

    Args:
        grad_output: [channels, area, lanes].
        outputs: of the ReLU, in that shape.
        inputs: of the batch norm before it, in that shape.
        means: [channels].
    """
    gradient = np.where(outputs > 0, grad_output, np.float64(0))
    products = gradient * (inputs - means[:, np.newaxis, np.newaxis])
    return gradient, np.stack([gradient.sum((1, 2)), products.sum((1, 2))], axis=1)


def gradient_sums_merge(sums: Array, numbers: float, variances: Array, weights: Array) -> Array:
    """Returns what `emit_gradient_sums_merge` computes, [5, channels].

    Args:
        sums: [groups, channels, 2].
        numbers: in a channel of the batch.
        variances: of the batch, [channels].
        weights: of the batch norm, [channels].
    """
    gradient, product = sums.sum(0, dtype=np.float64).T
    deviation = np.sqrt(variances + np.float64(EPSILON))
    scale = weights / deviation
    of_distance = scale / numbers * product / deviation**2
    return np.stack([product / deviation, gradient, scale, of_distance, scale / numbers * gradient])


def normalization_gradient(
    grad_output: Array, inputs: Array, means: Array, factors: Array, mask: Array
) -> Array:
    """Returns what `emit_normalization_gradient` computes, [channels, area, lanes].

    Args:
        grad_output: [channels, area, lanes].
        inputs: of the batch norm, in that shape.
        means: of the batch, [channels].
        factors: [3, channels]: of the gradient, of the distance from the mean, and of one.
        mask: [lanes].
    """
    of_gradient, of_distance, of_one = np.float64(factors)[..., np.newaxis, np.newaxis]
    distance = inputs - np.float64(means)[:, np.newaxis, np.newaxis]
    return (grad_output * of_gradient - distance * of_distance - of_one) * mask


def channel_sums(values: Array) -> Array:
    """Returns what `emit_channel_sums` computes, [channels], of [channels, area, lanes]."""
    return values.sum((1, 2), dtype=np.float64)


def _padded(shape: Convolution, images: Array) -> Array:
    border = (shape.padding, shape.padding)
    return np.pad(np.float64(images), ((0, 0), border, border, (0, 0)))


def _windows(shape: Convolution, padded: Array) -> Iterator[tuple[int, int, Array]]:
    """Yields each tap, and a view of the pixels that it meets: one for each result."""
    reach, step = shape.stride * (shape.output_size - 1) + 1, shape.stride
    for down, right in itertools.product(range(shape.kernel), repeat=2):
        yield down, right, padded[:, down : down + reach : step, right : right + reach : step]
