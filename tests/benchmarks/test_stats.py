"""Percentiles, ratios and tables of the benchmarks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.stats import Spread, percentile
from harness.tables import table

finite = st.floats(min_value=0, max_value=1e6)


def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed() -> None:
    values = np.arange(100.0, 0.0, -1.0)

    assert [percentile(values, percent) for percent in (1, 50, 99, 100)] == [1, 50, 99, 100]


@given(st.lists(finite, min_size=1), st.floats(min_value=0.01, max_value=100))
def test_a_percentile_was_measured_and_leaves_no_more_above_it(
    measured: list[float], percent: float
) -> None:
    found = percentile(np.array(measured), percent)

    assert found in measured
    assert sum(value > found for value in measured) <= len(measured) * (100 - percent) / 100 + 1e-6


@pytest.mark.parametrize("percent", [0, -1, 100.5])
def test_no_percentile_is_outside_its_range(percent: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 100"):
        percentile(np.ones(3), percent)


def test_nothing_measured_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile(np.array([]), 99)


def test_a_ratio_compares_within_rounds() -> None:
    # The machine was half as fast in the second round; the servers were not.
    assert Spread.of_ratios([4000, 2000, 4400], [2000, 1000, 2000]) == Spread(2.0, 2.0, 2.2)


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [1.0, 2.0]), ([1.0], [0.0]), ([], [])])
def test_what_was_not_measured_has_no_ratio(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match="round"):
        Spread.of_ratios(ours, theirs)


def test_a_spread_says_its_range_where_rounds_differ() -> None:
    assert Spread.of([2880.0, 2790.0, 2910.0]).text() == "2,880 (2,790 to 2,910)"
    assert Spread.of([1.234]).text(2) == "1.23"


def test_the_columns_of_a_table_line_up() -> None:
    text = table(("server", "requests/s"), [("leadline", "4,000"), ("triton", "2,880")])

    assert text.splitlines() == [
        "| server   | requests/s |",
        "| -------- | ---------- |",
        "| leadline | 4,000      |",
        "| triton   | 2,880      |",
    ]
