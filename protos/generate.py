"""Generates the Python stubs of the contract beside its `.proto` files.

Run by `make protos`; `tests/protos/test_generated_stubs.py` runs it into an
empty folder and compares. The tools are pinned in the `dev` extra: the oldest
protobuf that is supported makes the stubs, because generated code refuses a
runtime older than itself.
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
    """Writes the stubs of every `.proto` file of ours under `output`.

    Raises:
        RuntimeError: protoc found a mistake, which it has printed.
    """
    well_known_types = resources.files("grpc_tools") / "_proto"
    # What is in `third_party` is only referred to, and has its stubs elsewhere.
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
            # Beside this Python, whether or not its folder is in PATH.
            *(f"--plugin=protoc-gen-{name}={TOOLS / f'protoc-gen-{name}'}" for name in PLUGINS),
            *sources,
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc ended with status {status}")
    for path in output.rglob("*_pb2_grpc.py*"):
        # The plugin writes an empty service module for a file without services, and
        # one for the Open Inference Protocol, which is called by another name.
        if "service" not in path.name:
            path.unlink()


def main() -> None:
    """Generates into the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=PROTO_ROOT)
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    generate(output)


if __name__ == "__main__":
    main()
