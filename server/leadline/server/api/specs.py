"""Converts training specs from and to messages."""

from enum import StrEnum
from typing import Any

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


def to_spec(message: pb.TrainingSpec) -> TrainingSpec:
    """The spec, its unset fields filled with the defaults.

    Raises:
        InvalidArgumentError: the value of an enum is unknown.
    """
    values: dict[str, Any] = {}
    # Zero means "unset" only for enums and the dataset: the other fields have presence.
    for field, value in message.ListFields():
        known = _ENUMS.get(field.name, {value: value})
        if value not in known:
            raise InvalidArgumentError.of(
                f"spec.{field.name}", f"is {value}, which this server does not know"
            )
        values[field.name] = known[value]
    return TrainingSpec(**values)


def from_spec(spec: TrainingSpec) -> pb.TrainingSpec:
    """The spec with every field set."""
    values = {field.name: getattr(spec, field.name) for field in pb.TrainingSpec.DESCRIPTOR.fields}
    for name, known in _ENUMS.items():
        values[name] = next(number for number in known if known[number] is values[name])
    return pb.TrainingSpec(**values)
