"""Machine code and its cache."""

import platform
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from llvmlite import ir

from leadline.models.simd.compiler import DUMP_VARIABLE, Compiled, target_machine
from leadline.models.simd.emitter import Emitter, const
from leadline.models.simd.fields import Field
from leadline.models.simd.forward_pass import emit_inference_pass
from leadline.models.simd.instruction_set import InstructionSet, available_instruction_sets
from leadline.models.simd.kernel_args import KernelArgs
from leadline.models.simd.signatures import ENTRY_POINT

emitted: list[str] = []


def emit(module: ir.Module) -> None:
    """Emits an entry point that writes its thread's number plus 40 to the first field."""
    emitted.append(module.name)
    code = Emitter(module, "note", ENTRY_POINT, lanes=8)
    code.store(code.builder.add(code.arguments.thread, const(40)), code.arguments.args)
    code.close()


def noted(isa: InstructionSet = InstructionSet.BASELINE) -> int:
    compiled, args = Compiled("test", emit, isa), KernelArgs()
    compiled.function("note")(args.address, 2, 3)
    return args.number(Field.GROUPS)


def assembly_for(isa: InstructionSet) -> str:
    """Returns the assembly of the inference pass for any processor."""
    module = ir.Module("inference")
    machine = target_machine(isa)
    module.triple = machine.triple
    emit_inference_pass(module, skip=2, lanes=isa.lanes)
    assembly: str = machine.emit_assembly(llvm.parse_assembly(str(module)))
    return assembly


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    emitted.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "leadline" / "simd"


def test_code_is_compiled_once_and_then_read(cache: Path) -> None:
    assert [noted(), noted()] == [42, 42]
    assert len(emitted) == len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"x" * 400])
def test_damaged_code_is_compiled_again(cache: Path, content: bytes) -> None:
    assert noted() == 42
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(content or whole[:-1])
    assert noted() == 42
    assert len(emitted) == 2
    assert file.read_bytes() == whole


def test_code_that_cannot_be_cached_is_compiled_each_time(cache: Path) -> None:
    cache.parent.write_text("a file, where a folder should be")
    assert [noted(), noted()] == [42, 42]
    assert len(emitted) == 2


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    emitted.clear()

    def no_home() -> Path:
        raise RuntimeError("could not determine home directory")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert [noted(), noted()] == [42, 42]
    assert len(emitted) == 2


def test_a_relative_cache_folder_is_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert noted() == 42
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_each_instruction_set_has_code_of_its_own_in_the_cache(cache: Path) -> None:
    for isa in available_instruction_sets():
        assert noted(isa) == 42
    assert len(emitted) == len(list(cache.iterdir())) == len(available_instruction_sets())


def test_the_variable_dumps_what_is_compiled_even_where_the_code_is_cached(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    isa = available_instruction_sets()[-1]
    assert noted(isa) == 42
    (file,) = cache.iterdir()
    code, dump = file.read_bytes(), tmp_path / "dumps" / "today"
    monkeypatch.setenv(DUMP_VARIABLE, str(dump))

    assert noted(isa) == 42

    texts = {path.name: path.read_text() for path in dump.iterdir()}
    assert set(texts) == {f"test.{isa.value}.{kind}" for kind in ("ll", "optimized.ll", "s")}
    assert 'define void @"note"' in texts[f"test.{isa.value}.ll"]
    assert "define void @note" in texts[f"test.{isa.value}.optimized.ll"]
    assert "\nnote:\n" in texts[f"test.{isa.value}.s"]
    assert file.read_bytes() == code


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the registers of x86-64")
@pytest.mark.parametrize("isa", InstructionSet)
def test_code_uses_the_registers_of_its_instruction_set_and_no_wider_ones(
    isa: InstructionSet,
) -> None:
    assembly = assembly_for(isa)

    assert ("zmm" in assembly) == (isa is InstructionSet.AVX512)
    assert ("ymm" in assembly) == (isa is InstructionSet.AVX2)
    assert ("vfmadd" in assembly) == (isa is not InstructionSet.BASELINE)
    # Without the instruction, a fused product would call the C library.
    assert "fmaf" not in assembly
