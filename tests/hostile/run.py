"""`make hostile`: attacks servers and prints the table of what that cost others."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    # As the tests have it: `hostile` and `support` are importable, this folder's files are not.
    sys.path[0] = str(Path(__file__).parents[1])
    runpy.run_module("hostile.runner", run_name="__main__", alter_sys=True)
