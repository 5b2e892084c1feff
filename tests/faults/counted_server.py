"""The server, which also tells how many asyncio tasks it has: on SIGUSR1, in a file.

Nothing of the server is changed: a signal handler of the process looks at its
event loop from outside.
"""

import asyncio
import gc
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from types import FrameType

REPORT_VARIABLE = "TASK_REPORT"


def _report(_number: int, _frame: FrameType | None) -> None:
    gc.collect()  # what nobody holds any more is no leak
    path = Path(os.environ[REPORT_VARIABLE])
    partial = path.with_suffix(".partial")
    partial.write_text("\n".join(sorted(map(str, asyncio.all_tasks()))))
    partial.replace(path)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _report)
    sys.exit(import_module("leadline.server.main").main(sys.argv[1:]))
