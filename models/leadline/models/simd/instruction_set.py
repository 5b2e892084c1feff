"""The vector instructions that a process computes with on the CPU."""

import os
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache

import llvmlite.binding as llvm

VARIABLE = "LEADLINE_SIMD_ISA"
"""The environment variable that selects an instruction set by its name."""


class UnsupportedInstructionSetError(ValueError):
    """`LEADLINE_SIMD_ISA` names no instruction set that this processor has."""


class InstructionSet(Enum):
    """A level of vector instructions; code is compiled for the level, not for a CPU model.

    The level alone decides the machine code, so every processor that has the
    level runs the same instructions. Levels differ in how many images training
    computes at once, and so in the order in which gradients are summed. The baseline
    also rounds products before it adds them.
    """

    BASELINE = "baseline"
    """What every 64-bit processor has: SSE2 on x86-64, without fused multiply-add."""

    AVX2 = "avx2"
    """x86-64-v3: AVX2 and FMA."""

    AVX512 = "avx512"
    """x86-64-v4: AVX-512 F, BW, CD, DQ and VL."""

    @property
    def lanes(self) -> int:
        """float32 numbers in a vector: images that training computes at once."""
        return {InstructionSet.BASELINE: 4, InstructionSet.AVX2: 8, InstructionSet.AVX512: 16}[self]

    @property
    def target_cpu(self) -> str:
        """LLVM's name of the processor that has this level and nothing more."""
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
    """Returns the instruction sets that this processor has, the narrowest first."""
    return supported_by(llvm.get_host_cpu_features())


def supported_by(features: Mapping[str, bool]) -> tuple[InstructionSet, ...]:
    """Returns the instruction sets of a processor with these features of LLVM's, as above."""
    present = {name for name, is_present in features.items() if is_present}
    return tuple(isa for isa in InstructionSet if _REQUIRED_FEATURES[isa] <= present)


def instruction_set() -> InstructionSet:
    """Returns the instruction set of this process: that of `LEADLINE_SIMD_ISA`, or the widest.

    Raises:
        UnsupportedInstructionSetError: the variable names one that the processor lacks.
    """
    return choose(os.environ.get(VARIABLE, ""), available_instruction_sets())


def choose(name: str, available: Sequence[InstructionSet]) -> InstructionSet:
    """Returns the instruction set of a name, for an empty name the last available one.

    Raises:
        UnsupportedInstructionSetError: none of those available has this name.
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
