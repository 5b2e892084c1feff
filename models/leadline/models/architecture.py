"""What determines a network's shape."""

from dataclasses import dataclass

__all__ = ["Architecture"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Everything that determines a network's shape."""

    blocks: int
    """The depth: blocks between the head and the tail. 0 or more."""

    batch_norm: bool
    """Whether a batch norm follows each convolution inside the blocks."""

    residual: bool = False
    """Whether an identity connection goes around each block."""

    classes: int = 10
    """Classes that it tells apart."""
