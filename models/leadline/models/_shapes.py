"""The network's convolutions and batch norms in numbers, stated once for all engines."""

from dataclasses import dataclass

from leadline.models.images import IMAGE_SIZE

CHANNELS = 8
"""Output channels of every convolution except the tail's."""

HIDDEN = 100
"""The outputs of the first linear layer."""

EPSILON = 1e-5
"""The number that a batch norm adds to the variance: PyTorch's default."""

MOMENTUM = 0.1
"""The weight of a batch in a batch norm's running statistics: PyTorch's default."""


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """The shape of a convolution of square images."""

    inputs: int
    """Input channels."""

    outputs: int
    """Output channels."""

    kernel: int
    """Rows and columns of the kernel."""

    stride: int = 1
    padding: int = 0

    size: int
    """Rows and columns of an input image."""

    @property
    def output_size(self) -> int:
        """Rows and columns of an output image."""
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def input_vectors(self) -> int:
        """Vectors of a group of input images: one for each pixel of each channel."""
        return self.inputs * self.size**2

    @property
    def output_vectors(self) -> int:
        """Vectors of a group of output images: one for each pixel of each channel."""
        return self.outputs * self.output_size**2

    @property
    def weights(self) -> int:
        """The number of weights."""
        return self.inputs * self.outputs * self.kernel**2


WIDEN = Convolution(inputs=3, outputs=CHANNELS, kernel=5, size=IMAGE_SIZE)
HALVE = Convolution(inputs=CHANNELS, outputs=CHANNELS, kernel=5, stride=2, size=WIDEN.output_size)
INNER = Convolution(inputs=CHANNELS, outputs=CHANNELS, kernel=3, padding=1, size=HALVE.output_size)
TAIL = Convolution(inputs=CHANNELS, outputs=4, kernel=3, stride=2, size=INNER.output_size)
