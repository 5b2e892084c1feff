"""The parameters that determine a network's shape."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Everything that determines a network's shape."""

    blocks: int
    """The depth: blocks between the head and the tail. 0 or more."""

    block_convolutions: int = 1
    """The 3x3 convolutions of each block, in sequence: 1 or 2."""

    batch_norm: bool
    """Whether a batch norm follows each convolution inside the blocks."""

    residual: bool = False
    """Whether each block has an identity connection."""

    classes: int = 10
    """The number of classes."""

    @property
    def inner_convolutions(self) -> int:
        """The number of convolutions inside all blocks."""
        return self.blocks * self.block_convolutions

    @property
    def skip(self) -> int:
        """The convolutions that an identity connection spans; 0 without such connections."""
        return self.block_convolutions if self.residual else 0
