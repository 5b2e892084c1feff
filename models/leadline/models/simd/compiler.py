"""Makes machine code of LLVM's intermediate representation, for an instruction set."""

import contextlib
import ctypes
import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm
from llvmlite import ir

from leadline.models._files import write_atomically
from leadline.models.simd.instruction_set import InstructionSet

PassFunction = Callable[[int, int, int], None]
"""Runs a thread's share of a pass: the frame's address, the thread's number, the threads."""

_DIGEST_BYTES = hashlib.sha256().digest_size


class Compiled:
    """The passes of a module, as machine code; they hold no lock of the interpreter's.

    Machine code is kept in the user's cache folder, so that it is made once for
    an instruction set and a version of LLVM, and not once for each process.

    Args:
        name: of the module, one for all that `emit` may be.
        emit: writes the passes.
        isa: the instructions to use, which this processor must have.
    """

    def __init__(self, name: str, emit: Callable[[ir.Module], None], isa: InstructionSet) -> None:
        triple = llvm.get_process_triple()
        machine = target_machine(isa)
        kept = _KeptCode(name, triple, isa.value, str(llvm.llvm_version_info), _sources())
        code = kept.read()
        if code is None:
            module = ir.Module(name)
            module.triple = triple
            emit(module)
            code = _compile(module, machine)
            kept.write(code)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()

    def function(self, name: str) -> PassFunction:
        """Returns a pass; it lives as long as this object."""
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        return kind(self._engine.get_function_address(name))


class _KeptCode:
    """A file of machine code, named by all that it depends on."""

    def __init__(self, *origins: str) -> None:
        name = hashlib.sha256("\0".join(origins).encode()).hexdigest()
        folder = _cache_folder()
        self._path = folder / f"{name}.o" if folder else None

    def read(self) -> bytes | None:
        """The code, if it is there and whole."""
        if self._path is None:
            return None
        with contextlib.suppress(OSError):  # it can be made again
            content = self._path.read_bytes()
            digest, code = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
            if hashlib.sha256(code).digest() == digest:
                return code
        return None

    def write(self, code: bytes) -> None:
        """Keeps the code for the next process, where there is room for it."""
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(self._path, hashlib.sha256(code).digest() + code)


def target_machine(isa: InstructionSet) -> llvm.TargetMachine:
    """Returns LLVM's compiler for these instructions."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(cpu=isa.target_cpu, opt=2)


def _compile(module: ir.Module, machine: llvm.TargetMachine) -> bytes:
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    # The loops are written as they should be.
    options.loop_unrolling = options.loop_vectorization = options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    code: bytes = machine.emit_object(parsed)
    return code


@cache
def _sources() -> str:
    """What the passes are written by, as far as it is Leadline's own."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _cache_folder() -> Path | None:
    """The user's folder for what can be made again; None for a user without a home."""
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification tells to ignore a path that is not absolute.
    if Path(chosen).is_absolute():
        return Path(chosen) / "leadline" / "simd"
    try:
        return Path.home() / ".cache" / "leadline" / "simd"
    except RuntimeError:
        return None
