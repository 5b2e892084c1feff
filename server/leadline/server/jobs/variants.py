"""Filters models by the spec that they were trained with."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class VariantFilter:
    """Values that a model's spec must have; None allows any."""

    dataset: str | None = None
    blocks: int | None = None
    block_convolutions: int | None = None
    batch_norm: bool | None = None
    residual: bool | None = None
