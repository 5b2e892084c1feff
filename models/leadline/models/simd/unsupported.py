"""Refuses networks whose shapes the kernels do not have."""

from collections.abc import Sequence

from leadline.models._shapes import Convolution


class UnsupportedNetworkError(ValueError):
    """The kernels are written for other shapes than the network's; `torch` computes any network."""


def check_convolution(
    name: str,
    shape: Convolution,
    weights: Sequence[int],
    *,
    stride: Sequence[int],
    padding: Sequence[int],
) -> None:
    """Checks that a convolution, its weights [outputs, inputs, rows, columns], fits the kernels.

    Raises:
        UnsupportedNetworkError: it has another.
    """
    found = (tuple(weights), {*stride}, {*padding})
    square = (shape.outputs, shape.inputs, shape.kernel, shape.kernel)
    if found != (square, {shape.stride}, {shape.padding}):
        raise UnsupportedNetworkError(
            f"{name} has weights of the shape {found[0]} with stride {tuple(stride)} and padding "
            f"{tuple(padding)}, but the kernels are written for {square} with stride "
            f"{shape.stride} and padding {shape.padding}"
        )
