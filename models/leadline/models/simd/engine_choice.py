"""Which engine trains on a CPU."""

import os
from enum import Enum

from leadline.models.simd.instruction_set import instruction_set

ENGINE_VARIABLE = "LEADLINE_ENGINE"
"""The environment variable that selects the engine by its name."""


class UnknownEngineError(ValueError):
    """`LEADLINE_ENGINE` names no engine."""


class EngineChoice(Enum):
    """The engines that `LEADLINE_ENGINE` selects for training in float32 on a CPU."""

    AUTO = "auto"
    """The vector engine, the faster one."""

    TORCH = "torch"
    """Torch's own kernels, to compare with."""


def engine_choice() -> EngineChoice:
    """Returns what `LEADLINE_ENGINE` selects; unset or empty it is `auto`.

    Raises:
        UnknownEngineError: the variable names another engine.
    """
    name = os.environ.get(ENGINE_VARIABLE, "") or EngineChoice.AUTO.value
    try:
        return EngineChoice(name)
    except ValueError:
        known = " or ".join(choice.value for choice in EngineChoice)
        raise UnknownEngineError(f"{ENGINE_VARIABLE} is {name!r}: it must be {known}") from None


def recorded_instruction_set(device_type: str) -> str:
    """Returns the instruction set that a job records: none on a GPU, nor with torch's engine."""
    if device_type != "cpu" or engine_choice() is EngineChoice.TORCH:
        return ""
    return instruction_set().value
