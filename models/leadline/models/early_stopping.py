"""Decides when training ends early, from the results of the epochs alone.

This module does not import torch.
"""

from collections.abc import Sequence


def is_exhausted(test_accuracies: Sequence[float], patience: int) -> bool:
    """Returns whether `patience` epochs have passed since the first epoch of the best accuracy.

    A patience of 0 is never exhausted.
    """
    if not patience or not test_accuracies:
        return False
    best = max(range(len(test_accuracies)), key=test_accuracies.__getitem__)
    return len(test_accuracies) - 1 - best >= patience
