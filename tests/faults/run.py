"""`make faults`: runs the fault suite and prints its table of figures."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    # Like in the tests: `faults` and `support` are importable, the files of this folder are not.
    sys.path[0] = str(Path(__file__).parents[1])
    runpy.run_module("faults.runner", run_name="__main__", alter_sys=True)
