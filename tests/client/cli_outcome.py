"""The outcome of a command."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SCRIPT = (sys.executable, "-m", "leadline.client.cli")

# For tests that send Ctrl-C, which background processes of a shell ignore. `preexec_fn` cannot
# reset the signal, because gRPC's fork handlers can abort a process that runs Python before exec.
_HEED_CTRL_C = """\
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("leadline.client.cli", run_name="__main__", alter_sys=True)
"""
INTERRUPTIBLE_SCRIPT = (sys.executable, "-c", _HEED_CTRL_C)

QUICK = ("--dataset", "tiny", "--blocks", "0", "--epochs", "2", "--batch-size", "200")


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Returns stdout, which must contain only JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """Returns the error, which must be a JSON line on stderr."""
        return dict(json.loads(self.err.splitlines()[-1])["error"])


Leadline = Callable[..., Outcome]
