"""Selects the engine that trains on a CPU."""

import os
from enum import Enum

from leadline.models.simd.instruction_set import instruction_set

ENGINE_VARIABLE = "LEADLINE_ENGINE"
"""The environment variable that selects the engine by name."""


class UnknownEngineError(ValueError):
    """`LEADLINE_ENGINE` names no engine."""


class EngineChoice(Enum):
    """The engines that `LEADLINE_ENGINE` selects for training in float32 on a CPU."""

    AUTO = "auto"
    """The vector engine, the faster one."""

    TORCH = "torch"
    """Torch's kernels, for comparison."""


def engine_choice() -> EngineChoice:
    """Returns the engine that `LEADLINE_ENGINE` selects; `auto` if it is unset or empty.

    Raises:
        UnknownEngineError: the variable names no engine.
    """
    name = os.environ.get(ENGINE_VARIABLE, "") or EngineChoice.AUTO.value
    try:
        return EngineChoice(name)
    except ValueError:
        known = " or ".join(choice.value for choice in EngineChoice)
        raise UnknownEngineError(f"{ENGINE_VARIABLE} is {name!r}: it must be {known}") from None


def recorded_instruction_set(device_type: str) -> str:
    """Returns the instruction set that a job records: "" on a GPU and with torch's engine."""
    if device_type != "cpu" or engine_choice() is EngineChoice.TORCH:
        return ""
    return instruction_set().value
