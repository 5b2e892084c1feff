"""Machine code, and where it is kept."""

from pathlib import Path

import pytest
from llvmlite import ir

from leadline.models.simd.compiler import Compiled
from leadline.models.simd.emitter import I64, Emitter, const
from leadline.models.simd.passes import FIELDS
from leadline.models.simd.tensors import TensorFrame

emitted: list[str] = []


def emit(module: ir.Module) -> None:
    """A pass that writes its thread's number into the frame's first field."""
    emitted.append(module.name)
    code = Emitter(module, "note", [I64.as_pointer(), I64, I64], lanes=8)
    frame, thread, _ = code.arguments
    code.store(code.builder.add(thread, const(40)), frame)
    code.close()


def noted() -> int:
    compiled, frame = Compiled("test", emit), TensorFrame()
    compiled.function("note")(frame.address, 2, 3)
    return frame.read(FIELDS[0])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    emitted.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "leadline" / "simd"


def test_code_is_made_once_and_then_read(cache: Path) -> None:
    assert [noted(), noted()] == [42, 42]
    assert len(emitted) == len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"x" * 400])
def test_damaged_code_is_made_anew(cache: Path, content: bytes) -> None:
    assert noted() == 42
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(content or whole[:-1])
    assert noted() == 42
    assert len(emitted) == 2
    assert file.read_bytes() == whole


def test_code_that_cannot_be_kept_is_made_each_time(cache: Path) -> None:
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
