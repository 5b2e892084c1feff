"""The vector instructions that a process computes with on the CPU."""

import os
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache

import llvmlite.binding as llvm

VARIABLE = "LEADLINE_SIMD_ISA"
"""The environment variable that selects an instruction set by name."""


class UnsupportedInstructionSetError(ValueError):
    """`LEADLINE_SIMD_ISA` names no instruction set that this processor has."""


class InstructionSet(Enum):
    """A level of vector instructions; code is compiled for the level, not for a CPU model.

    The level alone determines the machine code, so all processors with the level
    run the same instructions. Levels differ in how many images training computes at
    once, and so in the order in which gradients are summed. The baseline also rounds
    products before it adds them.
    """

    BASELINE = "baseline"
    """Every 64-bit processor has it: SSE2 on x86-64, without fused multiply-add."""

    AVX2 = "avx2"
    """x86-64-v3: AVX2 and FMA."""

    AVX512 = "avx512"
    """x86-64-v4: AVX-512 F, BW, CD, DQ and VL."""

    @property
    def lanes(self) -> int:
        """The float32 numbers in a vector: the images that training computes at once."""
        return {InstructionSet.BASELINE: 4, InstructionSet.AVX2: 8, InstructionSet.AVX512: 16}[self]

    @property
    def target_cpu(self) -> str:
        """LLVM's name of a processor that has exactly this level."""
        if self is InstructionSet.BASELINE:
            return "generic"
        return {InstructionSet.AVX2: "x86-64-v3", InstructionSet.AVX512: "x86-64-v4"}[self]


_REQUIRED_FEATURES = {
    InstructionSet.BASELINE: frozenset[str](),
    InstructionSet.AVX2: frozenset({"avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"}),
}
_REQUIRED_FEATURES[InstructionSet.AVX512] = _REQUIRED_FEATURES[InstructionSet.AVX2] | {
    "avx512f",
    "avx512bw",
    "avx512cd",
    "avx512dq",
    "avx512vl",
}


@cache
def available_instruction_sets() -> tuple[InstructionSet, ...]:
    """Returns the instruction sets of this processor, the narrowest first."""
    return supported_by(llvm.get_host_cpu_features())


def supported_by(features: Mapping[str, bool]) -> tuple[InstructionSet, ...]:
    """Returns the instruction sets of a processor with these LLVM features, the narrowest first."""
    present = {name for name, is_present in features.items() if is_present}
    return tuple(isa for isa in InstructionSet if _REQUIRED_FEATURES[isa] <= present)


def instruction_set() -> InstructionSet:
    """Returns the instruction set that `LEADLINE_SIMD_ISA` selects, by default the widest.

    Raises:
        UnsupportedInstructionSetError: the variable names one that the processor lacks.
    """
    return choose(os.environ.get(VARIABLE, ""), available_instruction_sets())


def choose(name: str, available: Sequence[InstructionSet]) -> InstructionSet:
    """Returns the instruction set with a name; the last available one for an empty name.

    Raises:
        UnsupportedInstructionSetError: no available instruction set has this name.
    """
    if not name:
        return available[-1]
    for isa in available:
        if isa.value == name:
            return isa
    known = ", ".join(isa.value for isa in InstructionSet)
    present = ", ".join(isa.value for isa in available)
    raise UnsupportedInstructionSetError(
        f"{VARIABLE} is {name!r}: it may be one of {known}, and this processor has {present}; "
        "unset it to use the widest"
    )
