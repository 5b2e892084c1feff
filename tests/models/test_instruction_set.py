"""The selection of the instruction set."""

import pytest

from leadline.models.simd.instruction_set import (
    VARIABLE,
    InstructionSet,
    UnsupportedInstructionSetError,
    available_instruction_sets,
    choose,
    instruction_set,
    supported_by,
)

BASELINE, AVX2, AVX512 = InstructionSet

HASWELL = dict.fromkeys(("sse2", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"), True)
KNIGHTS_LANDING = HASWELL | {"avx512f": True, "avx512cd": True, "avx512vl": False}
SKYLAKE_SERVER = HASWELL | dict.fromkeys(
    ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"), True
)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"sse2": True, "avx": True, "avx2": False}, [BASELINE]),
        (HASWELL, [BASELINE, AVX2]),
        (HASWELL | {"fma": False}, [BASELINE]),
        (KNIGHTS_LANDING, [BASELINE, AVX2]),
        (SKYLAKE_SERVER, [BASELINE, AVX2, AVX512]),
    ],
)
def test_a_processor_has_the_sets_whose_every_instruction_it_has(
    features: dict[str, bool], expected: list[InstructionSet]
) -> None:
    assert list(supported_by(features)) == expected


def test_the_widest_is_used_unless_the_variable_names_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert instruction_set() is available_instruction_sets()[-1]
    for isa in available_instruction_sets():
        monkeypatch.setenv(VARIABLE, isa.value)
        assert instruction_set() is isa
    monkeypatch.setenv(VARIABLE, "")
    assert instruction_set() is available_instruction_sets()[-1]


def test_an_unknown_name_is_refused_with_those_that_are_known_and_present() -> None:
    with pytest.raises(UnsupportedInstructionSetError) as refused:
        choose("avx1024", [BASELINE, AVX2])
    assert str(refused.value) == (
        "LEADLINE_SIMD_ISA is 'avx1024': it may be one of baseline, avx2, avx512, and this "
        "processor has baseline, avx2; unset it to use the widest"
    )


def test_what_the_processor_lacks_is_refused() -> None:
    with pytest.raises(UnsupportedInstructionSetError, match="this processor has baseline, avx2;"):
        choose("avx512", [BASELINE, AVX2])
