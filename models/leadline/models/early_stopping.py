"""When training ends early: a function of the epochs' results alone.

This module imports nothing heavy.
"""

from collections.abc import Sequence


def is_exhausted(test_accuracies: Sequence[float], patience: int) -> bool:
    """Returns whether `patience` epochs have passed since the best, the earliest of equals.

    A patience of 0 is never exhausted.
    """
    if not patience or not test_accuracies:
        return False
    best = max(range(len(test_accuracies)), key=test_accuracies.__getitem__)
    return len(test_accuracies) - 1 - best >= patience
