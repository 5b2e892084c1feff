"""Compiles LLVM's intermediate representation (IR) for an instruction set, and caches the code."""

import contextlib
import ctypes
import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm
from llvmlite import ir

from leadline.models import _shapes
from leadline.models._files import write_atomically
from leadline.models.simd.instruction_set import InstructionSet
from leadline.models.simd.signatures import ENTRY_POINT, KernelSignature

DUMP_VARIABLE = "LEADLINE_SIMD_DUMP"
"""The environment variable that names a folder for the IR and the assembly of compiled code."""

EntryPoint = Callable[[int, int, int], None]
"""Runs a thread's share: (address of the `KernelArgs`, the thread's number, their count)."""

_DIGEST_BYTES = hashlib.sha256().digest_size


class Compiled:
    """The functions of a module as machine code; calls release the GIL.

    Machine code is cached in the user's cache folder. So it is compiled once for an
    instruction set and a version of LLVM, and not once for each process.

    If `LEADLINE_SIMD_DUMP` names a folder, the cache is not read, and the folder gets
    `NAME.ISA.ll`, the IR from `emit`; `NAME.ISA.optimized.ll`, the IR after LLVM's
    optimisation; and `NAME.ISA.s`, the assembly.

    Each name belongs to one `emit`, because it is part of the cache key.

    Raises:
        OSError: the dump cannot be written.
    """

    def __init__(self, name: str, emit: Callable[[ir.Module], None], isa: InstructionSet) -> None:
        triple = llvm.get_process_triple()
        machine = target_machine(isa)
        dump = os.environ.get(DUMP_VARIABLE, "")
        cached = _CachedCode(name, triple, isa.value, str(llvm.llvm_version_info), _sources())
        code = None if dump else cached.read()
        if code is None:
            module = ir.Module(name)
            module.triple = triple
            emit(module)
            optimized = _optimize(module, machine)
            if dump:
                stem = f"{name.replace(' ', '-')}.{isa.value}"
                _dump(Path(dump) / stem, str(module), str(optimized), machine)
            code = machine.emit_object(optimized)
            cached.write(code)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()

    def function(self, name: str, signature: KernelSignature = ENTRY_POINT) -> Callable[..., None]:
        """Returns a function, by default an `EntryPoint`; it is valid as long as this object."""
        kind = ctypes.CFUNCTYPE(None, *(kind.c_type for kind in signature.kinds.values()))
        return kind(self._engine.get_function_address(name))


class _CachedCode:
    """A file of machine code, named by the hash of everything that it depends on."""

    def __init__(self, *origins: str) -> None:
        name = hashlib.sha256("\0".join(origins).encode()).hexdigest()
        folder = _cache_folder()
        self._path = folder / f"{name}.o" if folder else None

    def read(self) -> bytes | None:
        """Returns the code, or None if it is missing or damaged."""
        if self._path is None:
            return None
        with contextlib.suppress(OSError):  # it can be compiled again
            content = self._path.read_bytes()
            digest, code = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
            if hashlib.sha256(code).digest() == digest:
                return code
        return None

    def write(self, code: bytes) -> None:
        """Saves the code for later processes; ignores errors of the file system."""
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(self._path, hashlib.sha256(code).digest() + code)


def target_machine(isa: InstructionSet) -> llvm.TargetMachine:
    """Returns LLVM's compiler for an instruction set."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(cpu=isa.target_cpu, opt=2)


def _optimize(module: ir.Module, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    # The emitters unroll and vectorise themselves.
    options.loop_unrolling = options.loop_vectorization = options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    return parsed


def _dump(stem: Path, emitted: str, optimized: str, machine: llvm.TargetMachine) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    # From a copy, because emitting assembly changes the module.
    assembly = machine.emit_assembly(llvm.parse_assembly(optimized))
    for suffix, text in (("ll", emitted), ("optimized.ll", optimized), ("s", assembly)):
        write_atomically(stem.with_name(f"{stem.name}.{suffix}"), text.encode())


@cache
def _sources() -> str:
    """Returns the hash of the sources and shapes that determine the emitted code."""
    shapes = repr((_shapes.WIDEN, _shapes.HALVE, _shapes.INNER, _shapes.TAIL, _shapes.EPSILON))
    files = sorted(Path(__file__).parent.glob("*.py"))
    contents = b"".join(file.read_bytes() for file in files)
    return hashlib.sha256(shapes.encode() + contents).hexdigest()


def _cache_folder() -> Path | None:
    """Returns the user's cache folder; None for a user without a home."""
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification requires ignoring relative paths.
    if Path(chosen).is_absolute():
        return Path(chosen) / "leadline" / "simd"
    try:
        return Path.home() / ".cache" / "leadline" / "simd"
    except RuntimeError:
        return None
