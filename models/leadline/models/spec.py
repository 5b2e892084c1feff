"""Describes what to train: the network, the dataset and the optimisation.

This module does not import torch, so processes that only check specs need no
torch.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

MAX_BLOCKS = 64
MAX_EPOCHS = 10_000
MAX_BATCH_SIZE = 65_536
MAX_LEARNING_RATE = 1_000.0
MAX_WEIGHT_DECAY = 1.0
MAX_SEED = 2**31 - 1
MAX_PATIENCE = 10_000

_DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Optimizer(StrEnum):
    """A rule that turns gradients into steps."""

    SGD = "sgd"
    """Stochastic gradient descent, with optional momentum."""

    ADAM = "adam"
    """Adam (Kingma and Ba, 2015) with its published betas of 0.9 and 0.999."""

    ADAMW = "adamw"
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""


class Initialization(StrEnum):
    """How the weights are drawn before the first step."""

    DEFAULT = "default"
    """PyTorch's default: weights and biases are uniform within 1 / sqrt(fan in) of 0."""

    KAIMING = "kaiming"
    """Weights are normal, with variance 2 / fan in before a ReLU; biases 0 (He et al., 2015)."""


class Schedule(StrEnum):
    """How the learning rate changes; `leadline.models.schedule` has the formulas."""

    CONSTANT = "constant"
    """The learning rate does not change."""

    COSINE = "cosine"
    """Half a cosine down to 0 (Loshchilov and Hutter, 2017, without restarts)."""

    ONE_CYCLE = "one_cycle"
    """A linear rise, then half a cosine down to 0 (after Smith and Topin, 2018)."""


class Augmentation(StrEnum):
    """Random flips and shifts of training images."""

    NONE = "none"
    """No augmentation."""

    FLIP = "flip"
    """Each image is flipped left to right with a probability of one half."""

    FLIP_CROP = "flip_crop"
    """Also shifts each image by -4 to 4 pixels in each direction; edges are reflected."""


class Precision(StrEnum):
    """The precision of training steps. Weights and evaluations are always float32."""

    FLOAT32 = "float32"
    """IEEE single precision."""

    BFLOAT16 = "bfloat16"
    """Convolutions and linear layers in bfloat16, weights and their updates in float32."""


@dataclass(frozen=True)
class Violation:
    """A field of a spec with an invalid value."""

    field: str
    """The field's name."""

    description: str
    """The allowed values, and the given one."""


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """Describes what to train. The defaults are the protocol that Leadline started from."""

    dataset: str = "cifar10"
    """The dataset's name, 1 to 64 of a-z, 0-9, '.', '_', '-'."""

    blocks: int = 2
    """The depth: the number of blocks. 0 to 64."""

    block_convolutions: int = 1
    """The 3x3 convolutions of each block, in sequence. 1 or 2."""

    batch_norm: bool = False
    """Whether a batch norm follows each convolution inside the blocks."""

    epochs: int = 51
    """Passes over the training set. 1 to 10,000."""

    batch_size: int = 128
    """Images in a step; the last batch may be smaller. 1 to 65,536."""

    learning_rate: float = 0.01
    """The optimizer's step size. Above 0, at most 1,000."""

    optimizer: Optimizer = Optimizer.SGD
    """The rule that turns gradients into steps."""

    momentum: float = 0.0
    """SGD's momentum. 0 up to, but excluding, 1; 0 with another optimizer."""

    weight_decay: float = 0.0
    """An L2 penalty for SGD and Adam, decoupled for AdamW. 0 to 1."""

    seed: int = 0
    """The seed of the initial weights and of the order of the images. 0 to 2^31 - 1."""

    residual: bool = False
    """Whether each block's input is added before its last ReLU (He et al., 2016)."""

    initialization: Initialization = Initialization.DEFAULT
    """How the weights are drawn before the first step."""

    schedule: Schedule = Schedule.CONSTANT
    """How the learning rate changes; `learning_rate` is its highest value."""

    nesterov: bool = False
    """Whether SGD's momentum, which must then be above 0, is Nesterov's."""

    augmentation: Augmentation = Augmentation.NONE
    """Random flips and shifts of training images; evaluations use the original images."""

    patience: int = 0
    """Epochs without a better test accuracy after which training ends, or 0. 0 to 10,000."""

    precision: Precision = Precision.FLOAT32
    """The precision of training steps."""

    diagnostics: bool = False
    """Whether activations and gradients are measured block by block; changes no weight."""

    def violations(self) -> list[Violation]:
        """Returns the fields with invalid values, in the order of the fields."""
        violations = [
            Violation(field, f"must be {allowed}, but is {getattr(self, field)!r}")
            for field, allowed, holds in _RULES
            if not holds(getattr(self, field))
        ]
        if self.optimizer is not Optimizer.SGD and self.momentum != 0:
            violations.append(
                Violation(
                    "momentum",
                    f"must be 0 with the optimizer {self.optimizer}, which keeps moments of its "
                    f"own, but is {self.momentum!r}",
                )
            )
        if self.nesterov and (self.optimizer is not Optimizer.SGD or self.momentum == 0):
            violations.append(
                Violation(
                    "nesterov",
                    "must be false unless the optimizer is sgd with a momentum above 0, but the "
                    f"optimizer is {self.optimizer} and the momentum {self.momentum!r}",
                )
            )
        return violations

    def to_dict(self) -> dict[str, Any]:
        """Returns every field as a JSON value."""
        return {
            name: value.value if isinstance(value, StrEnum) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Returns the spec from the result of `to_dict`; a missing field gets its default.

        Raises:
            ValueError: a key is not a field, or a value is not of its field's type.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise ValueError(f"a training spec has no such fields: {', '.join(unknown)}")
        return cls(
            **{name: _typed(name, value, fields[name].type) for name, value in values.items()}
        )


def _typed(name: str, value: Any, kind: Any) -> Any:
    if issubclass(kind, StrEnum) and isinstance(value, str):
        return kind(value)
    # JSON may write a float without a point. In Python, a bool is an int, but not here.
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or isinstance(value, bool) is not (kind is bool):
        raise ValueError(f"{name} must be of type {kind.__name__}, but is {value!r}")
    return float(value) if kind is float else value


def _between(least: float, most: float) -> Callable[[float], bool]:
    # Comparisons with NaN are false, so this rejects NaN as well as infinities.
    return lambda value: least <= value <= most


_RULES: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    (
        "dataset",
        "1 to 64 characters of a-z, 0-9, '.', '_' and '-', the first a letter or a digit",
        lambda name: _DATASET_NAME.fullmatch(name) is not None,
    ),
    ("blocks", f"0 to {MAX_BLOCKS}", _between(0, MAX_BLOCKS)),
    ("block_convolutions", "1 or 2", lambda number: number in (1, 2)),
    ("epochs", f"1 to {MAX_EPOCHS:,}", _between(1, MAX_EPOCHS)),
    ("batch_size", f"1 to {MAX_BATCH_SIZE:,}", _between(1, MAX_BATCH_SIZE)),
    (
        "learning_rate",
        f"a finite number above 0 and at most {MAX_LEARNING_RATE:,.0f}",
        lambda rate: 0 < rate <= MAX_LEARNING_RATE,
    ),
    ("momentum", "at least 0 and below 1", lambda momentum: 0 <= momentum < 1),
    (
        "weight_decay",
        f"a finite number from 0 to {MAX_WEIGHT_DECAY:.0f}",
        _between(0, MAX_WEIGHT_DECAY),
    ),
    ("seed", f"0 to {MAX_SEED:,}", _between(0, MAX_SEED)),
    ("patience", f"0 to {MAX_PATIENCE:,}", _between(0, MAX_PATIENCE)),
)
