"""Rejects networks whose shapes have no kernels."""

from collections.abc import Sequence

from leadline.models._shapes import Convolution


class UnsupportedNetworkError(ValueError):
    """There are no kernels for the network's shapes; the engine `torch` computes any network."""


def check_convolution(
    name: str,
    shape: Convolution,
    weights: Sequence[int],
    *,
    stride: Sequence[int],
    padding: Sequence[int],
) -> None:
    """Checks that a convolution fits the kernels; weights are [outputs, inputs, rows, columns].

    Raises:
        UnsupportedNetworkError: the convolution has another shape.
    """
    given = (tuple(weights), {*stride}, {*padding})
    square = (shape.outputs, shape.inputs, shape.kernel, shape.kernel)
    if given != (square, {shape.stride}, {shape.padding}):
        raise UnsupportedNetworkError(
            f"{name} has weights of the shape {given[0]} with stride {tuple(stride)} and padding "
            f"{tuple(padding)}, but the kernels are written for {square} with stride "
            f"{shape.stride} and padding {shape.padding}"
        )
