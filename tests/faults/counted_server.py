"""A server that writes its number of asyncio tasks to a file on SIGUSR1.

The server is unchanged: a signal handler of the process inspects its event loop.
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
    gc.collect()  # garbage is not a leak
    path = Path(os.environ[REPORT_VARIABLE])
    partial = path.with_suffix(".partial")
    partial.write_text("\n".join(sorted(map(str, asyncio.all_tasks()))))
    partial.replace(path)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _report)
    sys.exit(import_module("leadline.server.main").main(sys.argv[1:]))
