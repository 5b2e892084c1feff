"""Generates the Python stubs of the contract beside its `.proto` files.

`make protos` runs it. `tests/protos/test_generated_stubs.py` runs it into an empty folder and
compares the files. The `dev` extra pins the tools to the oldest supported protobuf, because
generated code refuses an older runtime than its generator.
"""

import argparse
import sys
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

PROTO_ROOT = Path(__file__).parent

TOOLS = Path(sys.executable).parent
PLUGINS = ("mypy", "mypy_grpc")


def generate(output: Path) -> None:
    """Writes the stubs of every `.proto` file in `leadline/` to `output`.

    Raises:
        RuntimeError: protoc failed; it has printed the reason.
    """
    well_known_types = resources.files("grpc_tools") / "_proto"
    # The files in `third_party` are only imported; an installed package has their stubs.
    sources = sorted(str(path) for path in (PROTO_ROOT / "leadline").rglob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTO_ROOT}",
            f"--proto_path={PROTO_ROOT / 'third_party'}",
            f"--proto_path={well_known_types}",
            f"--python_out={output}",
            f"--grpc_python_out={output}",
            f"--mypy_out={output}",
            f"--mypy_grpc_out={output}",
            # The plugins beside this Python, even if its folder is not in PATH.
            *(f"--plugin=protoc-gen-{name}={TOOLS / f'protoc-gen-{name}'}" for name in PLUGINS),
            *sources,
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc ended with status {status}")
    for path in output.rglob("*_pb2_grpc.py*"):
        # Deletes the service modules of files without services. Deletes that of the Open Inference
        # Protocol too, whose service has another name on the wire.
        if "service" not in path.name:
            path.unlink()


def main() -> None:
    """Writes the stubs to the folder of `--output`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=PROTO_ROOT)
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    generate(output)


if __name__ == "__main__":
    main()
