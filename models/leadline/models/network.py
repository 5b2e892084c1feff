"""The network, for any number and kind of blocks."""

from collections import OrderedDict

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from leadline.models._shapes import (
    CHANNELS,
    EPSILON,
    HALVE,
    HIDDEN,
    INNER,
    MOMENTUM,
    TAIL,
    WIDEN,
    Convolution,
)
from leadline.models.architecture import Architecture

__all__ = ["Architecture", "BlockNetwork", "parameter_count"]


class BlockNetwork(nn.Module):
    """A small convolutional classifier of 32x32 RGB images.

    Two convolutions widen the image and halve it, the blocks keep its shape,
    and a convolution and two linear layers compute the logits. Layers have
    PyTorch's default initialisation, and are created in the order of the forward
    pass, so that a seed determines the weights.

    Source: the protocol of the notebook that Leadline started from, which applies
    no activation after the convolutions of the head and the tail.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.head = nn.Sequential(
            OrderedDict(
                widen=_convolution(WIDEN),
                halve=_convolution(HALVE),
            )
        )
        block = ResidualBlock if architecture.residual else Block
        self.blocks = nn.Sequential(
            *(
                block(
                    convolutions=architecture.block_convolutions, batch_norm=architecture.batch_norm
                )
                for _ in range(architecture.blocks)
            )
        )
        self.tail = _convolution(TAIL)
        self.classifier = nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                hidden=nn.Linear(TAIL.output_vectors, HIDDEN),
                relu=nn.ReLU(inplace=True),
                output=nn.Linear(HIDDEN, architecture.classes, bias=False),
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits, float32 [N, classes].

        Args:
            images: float32 [N, 3, 32, 32] in [-1, 1], as `normalize` returns them.
        """
        features = self.blocks(self.head(images))
        logits: Tensor = self.classifier(self.tail(features))
        return logits

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Returns the parameters and buffers by their names."""
        return {name: value.cpu().numpy() for name, value in self.state_dict().items()}


class Block(nn.Sequential):
    """A 3x3 convolution, an optional batch norm and a ReLU, once or twice. Keeps [N, 8, H, W].

    The notebook that Leadline started from declares two convolutions a block. But its
    forward pass applies both to the block's input, and returns only the second
    result. So the notebook computes blocks of one convolution.
    """

    def __init__(self, *, convolutions: int, batch_norm: bool) -> None:
        super().__init__()
        for step in ("first", "second")[:convolutions]:
            self.add_module(f"{step}_conv", _convolution(INNER))
            if batch_norm:
                norm = nn.BatchNorm2d(CHANNELS, eps=EPSILON, momentum=MOMENTUM)
                self.add_module(f"{step}_norm", norm)
            self.add_module(f"{step}_relu", nn.ReLU(inplace=True))


class ResidualBlock(Block):
    """A block whose input is added before its last ReLU. Keeps [N, 8, H, W].

    Its parameters have the same names as those of a `Block`, and are drawn in the
    same order.

    Source: He et al. (2016), "Deep Residual Learning for Image Recognition",
    section 3.2, with the identity as the shortcut.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Returns the block's output, [N, 8, H, W].

        Args:
            features: float32 [N, 8, H, W].
        """
        *branch, activation = self
        residual = features
        for layer in branch:
            residual = layer(residual)
        result: Tensor = activation(residual + features)
        return result


def _convolution(shape: Convolution) -> nn.Conv2d:
    return nn.Conv2d(
        shape.inputs, shape.outputs, shape.kernel, stride=shape.stride, padding=shape.padding
    )


def parameter_count(module: nn.Module) -> int:
    """Returns the number of trainable parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
