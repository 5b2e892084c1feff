import importlib.util
from pathlib import Path
from types import ModuleType

PROTOS = Path(__file__).parents[2] / "protos"


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", PROTOS / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stubs_in(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*_pb2*")
        if path.suffix in {".py", ".pyi"}
    }


def test_the_checked_in_stubs_are_those_of_the_proto_files(tmp_path: Path) -> None:
    load_generator().generate(tmp_path)

    generated, checked_in = stubs_in(tmp_path), stubs_in(PROTOS)

    assert generated.keys() == checked_in.keys()
    assert [name for name, text in generated.items() if text != checked_in[name]] == []
