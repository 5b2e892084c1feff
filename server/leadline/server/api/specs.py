"""Training specs: message to value, and back."""

from enum import StrEnum
from typing import Any, Literal, get_args

from leadline.models.spec import (
    Augmentation,
    Initialization,
    Optimizer,
    Precision,
    Schedule,
    TrainingSpec,
)
from leadline.server.errors import InvalidArgumentError
from leadline.v1 import training_spec_pb2 as pb

# The fields of a spec that are enums, and the values of their numbers.
_ENUMS: dict[str, dict[int, StrEnum]] = {
    "optimizer": {
        pb.OPTIMIZER_SGD: Optimizer.SGD,
        pb.OPTIMIZER_ADAM: Optimizer.ADAM,
        pb.OPTIMIZER_ADAMW: Optimizer.ADAMW,
    },
    "initialization": {
        pb.INITIALIZATION_DEFAULT: Initialization.DEFAULT,
        pb.INITIALIZATION_KAIMING: Initialization.KAIMING,
    },
    "schedule": {
        pb.SCHEDULE_CONSTANT: Schedule.CONSTANT,
        pb.SCHEDULE_COSINE: Schedule.COSINE,
        pb.SCHEDULE_ONE_CYCLE: Schedule.ONE_CYCLE,
    },
    "augmentation": {
        pb.AUGMENTATION_NONE: Augmentation.NONE,
        pb.AUGMENTATION_FLIP: Augmentation.FLIP,
        pb.AUGMENTATION_FLIP_CROP: Augmentation.FLIP_CROP,
    },
    "precision": {
        pb.PRECISION_FLOAT32: Precision.FLOAT32,
        pb.PRECISION_BFLOAT16: Precision.BFLOAT16,
    },
}

# The fields of a spec that have presence, so that zero is not "unset".
_OptionalField = Literal[
    "blocks",
    "block_convolutions",
    "batch_norm",
    "epochs",
    "batch_size",
    "learning_rate",
    "momentum",
    "weight_decay",
    "seed",
    "residual",
    "nesterov",
    "patience",
    "diagnostics",
]
_OPTIONAL_FIELDS: tuple[_OptionalField, ...] = get_args(_OptionalField)


def to_spec(message: pb.TrainingSpec) -> TrainingSpec:
    """The spec, its unset fields filled with the defaults.

    Raises:
        InvalidArgumentError: the value of an enum is not known.
    """
    values: dict[str, Any] = {
        name: getattr(message, name) for name in _OPTIONAL_FIELDS if message.HasField(name)
    }
    if message.dataset:
        values["dataset"] = message.dataset
    for name, known in _ENUMS.items():
        number = getattr(message, name)
        if number == 0:  # unspecified
            continue
        if number not in known:
            raise InvalidArgumentError.of(
                f"spec.{name}", f"is {number}, which this server does not know"
            )
        values[name] = known[number]
    return TrainingSpec(**values)


def from_spec(spec: TrainingSpec) -> pb.TrainingSpec:
    """The spec with every field set."""
    message = pb.TrainingSpec(
        dataset=spec.dataset, **{name: getattr(spec, name) for name in _OPTIONAL_FIELDS}
    )
    for name, known in _ENUMS.items():
        value = getattr(spec, name)
        setattr(message, name, next(number for number in known if known[number] is value))
    return message
