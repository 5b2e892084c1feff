"""`make hostile`: attacks servers, and prints the table of the costs for others."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    # Like in the tests: `hostile` and `support` are importable, the files of this folder are not.
    sys.path[0] = str(Path(__file__).parents[1])
    runpy.run_module("hostile.runner", run_name="__main__", alter_sys=True)
