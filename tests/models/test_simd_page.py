"""The page on the vector engine shows the current code, and names existing files."""

import inspect
import platform
import re
from collections.abc import Callable
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from llvmlite import ir

from docs.pages import DOCS, ROOT, blocks
from leadline.models._shapes import INNER
from leadline.models.simd import convolutions, elementwise, reference
from leadline.models.simd.compiler import _optimize, target_machine
from leadline.models.simd.fields import AREA
from leadline.models.simd.instruction_set import InstructionSet
from leadline.models.simd.signatures import Kernel

PAGE = DOCS / "simd.md"
SIMD = Path(inspect.getfile(elementwise)).parent


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def assert_in_order(excerpt: str, text: str) -> None:
    remaining = iter(lines(text))
    for line in lines(excerpt):
        assert line in remaining, line


def test_the_python_shown_is_that_of_the_kernel_and_of_its_twin() -> None:
    twin, kernel, tile = blocks(PAGE, "python")

    assert_in_order(twin, inspect.getsource(reference.normalization))
    assert_in_order(kernel, inspect.getsource(elementwise.emit_normalization))
    assert_in_order(tile, inspect.getsource(convolutions._add_products))


def optimized(emit: Callable[[ir.Module], Kernel]) -> str:
    """Returns the IR of a kernel for AVX-512, after LLVM's passes."""
    machine = target_machine(InstructionSet.AVX512)
    module = ir.Module("page")
    module.triple = machine.triple
    emit(module)
    return str(_optimize(module, machine))


def assembly(code: str) -> str:
    machine = target_machine(InstructionSet.AVX512)
    return str(machine.emit_assembly(llvm.parse_assembly(code)))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instructions of x86-64")
def test_the_code_shown_is_what_is_compiled() -> None:
    lanes = InstructionSet.AVX512.lanes
    normalization = optimized(
        lambda module: elementwise.emit_normalization(
            module, "normalize", area=AREA, lanes=lanes, add=False
        )
    )
    convolution = optimized(
        lambda module: convolutions.emit_convolution(
            module, "convolve", INNER, lanes=lanes, add=False, relu=False
        )
    )

    [shown], [of_normalization, of_tile] = blocks(PAGE, "llvm"), blocks(PAGE, "asm")

    assert_in_order(shown, normalization)
    assert_in_order(of_normalization, assembly(normalization))
    assert "\n".join(lines(of_tile)) in "\n".join(lines(assembly(convolution)))


def test_the_files_named_are_there_and_all_of_them() -> None:
    named = set(re.findall(r"`(?:simd/)?([a-z_]+\.py)`", PAGE.read_text()))

    assert named >= {path.name for path in SIMD.glob("*.py")} - {"__init__.py"}
    for path in re.findall(r"`((?:simd|models|tests|benchmarks)/[\w/]+\.py)`", PAGE.read_text()):
        folders = (ROOT, ROOT / "models/leadline", ROOT / "models/leadline/models")
        assert any((folder / path).exists() for folder in folders), path
