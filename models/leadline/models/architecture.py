"""What determines a network's shape."""

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
    """Whether an identity connection goes around each block."""

    classes: int = 10
    """Classes that it tells apart."""

    @property
    def inner_convolutions(self) -> int:
        """The convolutions inside the blocks, all blocks together."""
        return self.blocks * self.block_convolutions

    @property
    def skip(self) -> int:
        """The convolutions that an identity connection spans; 0 without such connections."""
        return self.block_convolutions if self.residual else 0
