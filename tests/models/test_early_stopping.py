import pytest

from leadline.models.early_stopping import is_exhausted


@pytest.mark.parametrize(
    ("accuracies", "patience", "expected"),
    [
        ([], 1, False),
        ([0.5], 1, False),
        ([0.5, 0.6], 1, False),
        ([0.5, 0.4], 1, True),
        ([0.5, 0.5], 1, True),  # equal is not better
        ([0.5, 0.4], 2, False),
        ([0.5, 0.4, 0.5], 2, True),
        ([0.5, 0.4, 0.6, 0.4], 2, False),
        ([0.5, 0.4, 0.6, 0.4, 0.3], 2, True),
        ([0.5] * 100, 0, False),
    ],
)
def test_patience_ends_after_so_many_epochs_without_a_better_one(
    accuracies: list[float], patience: int, expected: bool
) -> None:
    assert is_exhausted(accuracies, patience) is expected
