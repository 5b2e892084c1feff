"""The divisor of a convolution, computed from the diagnoses of blocks."""

import math

import pytest

from harness.depth import EXPECTED_FACTOR, Curve, at_convolutions, factor
from harness.depth_report import factors_of, report
from leadline.client import BlockDiagnosis


def shrinking(blocks: int, block_convolutions: int, by: float) -> Curve:
    """Returns the curve of a network whose convolutions all divide by the same factor."""
    curve = Curve(block_convolutions, [0.2], [0.1])
    depth = blocks * block_convolutions
    passed = [block * block_convolutions for block in range(blocks + 1)]
    curve.add(
        [
            BlockDiagnosis(block=0, activation_std=by**-one, gradient_norm=by ** (one - depth))
            for one in passed
        ]
    )
    return curve


def test_default_weights_divide_the_variance_by_six() -> None:
    assert pytest.approx(6) == EXPECTED_FACTOR**2


def test_a_block_of_two_convolutions_counts_twice() -> None:
    assert at_convolutions([3.0, 2.0, 1.0], 2) == {0: 3.0, 2: 2.0, 4: 1.0}


@pytest.mark.parametrize("block_convolutions", [1, 2])
def test_the_factor_is_that_of_one_convolution_for_either_form(block_convolutions: int) -> None:
    curve = shrinking(4, block_convolutions, by=2.5)

    assert factors_of(curve) == pytest.approx((2.5, 2.5))


def test_values_down_at_the_rounding_do_not_count() -> None:
    assert factor({0: 1.0, 1: 0.5, 2: 0.25, 3: 0.24}, above=0.24) == pytest.approx(2)


@pytest.mark.parametrize("values", [{}, {0: 1.0}, {0: 1.0, 1: 0.1}])
def test_one_value_has_no_factor(values: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="two values"):
        factor(values, above=0.1)


def test_the_report_places_blocks_at_the_convolutions_that_they_end() -> None:
    curves = {"3 x 2": shrinking(3, 2, by=math.sqrt(10))}

    lines = report(curves, "synthetic").splitlines()

    row = next(line for line in lines if line.count("1.0e-0") > 1)
    assert [cell.strip() for cell in row.split("|")[2:8]] == [
        "1.0e+00",
        "",
        "1.0e-01",
        "1.0e-02",
        "1.0e-03",
        "",
    ]
