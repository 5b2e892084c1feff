"""What a command came to."""

import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SCRIPT = (sys.executable, "-m", "leadline.client.cli")


def heed_ctrl_c() -> None:
    """In a process to be: tests in a shell's background inherit that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


QUICK = ("--dataset", "tiny", "--blocks", "0", "--epochs", "2", "--batch-size", "200")


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def messages(self) -> list[dict[str, Any]]:
        """stdout, which must be JSON lines and nothing else."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The error, which must be a JSON line of stderr."""
        return dict(json.loads(self.err.splitlines()[-1])["error"])


Leadline = Callable[..., Outcome]
