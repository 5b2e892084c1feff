"""`make faults`: runs the fault suite and prints its table of figures."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    # As the tests have it: `faults` and `support` are importable, this folder's files are not.
    sys.path[0] = str(Path(__file__).parents[1])
    runpy.run_module("faults.runner", run_name="__main__", alter_sys=True)
