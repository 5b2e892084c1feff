"""The table of a sweep: statistics over seeds, the best depth, and its confidence."""

import math

import pytest

from leadline.server.sweeps.student_t import student_t_cdf
from leadline.server.sweeps.table import SeedStatistics, confidence_in_best


@pytest.mark.parametrize("t", [-6.0, -1.0, 0.0, 0.3, 2.0, 40.0])
def test_students_distribution_agrees_with_its_closed_forms(t: float) -> None:
    # Abramowitz and Stegun 26.7.3 and 26.7.4: degrees of freedom 1, 2 and 4.
    one = 0.5 + math.atan(t) / math.pi
    two = 0.5 + t / (2 * math.sqrt(2 + t * t))
    u = t / math.sqrt(4 + t * t)
    four = 0.5 + 0.75 * (u - u**3 / 3)

    assert student_t_cdf(t, 1) == pytest.approx(one, abs=1e-10)
    assert student_t_cdf(t, 2) == pytest.approx(two, abs=1e-10)
    assert student_t_cdf(t, 4) == pytest.approx(four, abs=1e-10)


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 6.313752), (5, 2.015048), (10, 1.812461), (100, 1.660234)]
)
def test_students_distribution_agrees_with_the_table_of_quantiles(
    degrees: int, quantile: float
) -> None:
    assert student_t_cdf(quantile, degrees) == pytest.approx(0.95, abs=1e-6)


def test_students_distribution_tends_to_the_normal_one() -> None:
    assert student_t_cdf(1.0, 10_000) == pytest.approx(0.5 * math.erfc(-1 / math.sqrt(2)), abs=1e-4)
    assert student_t_cdf(math.inf, 3) == pytest.approx(1.0)
    assert student_t_cdf(-math.inf, 3) == pytest.approx(0.0)


def test_the_spread_is_the_sample_standard_deviation() -> None:
    statistics = SeedStatistics.of([0.5, 0.6, 0.7])

    assert (statistics.count, statistics.least, statistics.most) == (3, 0.5, 0.7)
    assert statistics.mean == pytest.approx(0.6)
    assert statistics.deviation == pytest.approx(0.1)
    assert SeedStatistics.of([0.5]).deviation is None


def test_the_confidence_in_one_of_two_is_welchs() -> None:
    # Means 0.6 and 0.5, both with a variance of 0.01 / 3: t = 0.1 / sqrt(0.02 / 3), 4 degrees.
    best = SeedStatistics.of([0.5, 0.6, 0.7])
    other = SeedStatistics.of([0.4, 0.5, 0.6])

    assert confidence_in_best(best, [other]) == pytest.approx(
        student_t_cdf(0.1 / math.sqrt(0.02 / 3), 4)
    )


def test_with_several_others_the_probabilities_are_multiplied() -> None:
    best = SeedStatistics.of([0.5, 0.6, 0.7])
    other = SeedStatistics.of([0.4, 0.5, 0.6])
    alone = confidence_in_best(best, [other])

    assert alone is not None
    assert confidence_in_best(best, [other, other]) == pytest.approx(alone**2)


def test_a_depth_that_learns_nothing_has_no_spread_and_is_worse_for_sure() -> None:
    stuck = SeedStatistics.of([0.1, 0.1, 0.1])

    assert confidence_in_best(SeedStatistics.of([0.5, 0.5]), [stuck]) == 1.0
    assert confidence_in_best(stuck, [stuck]) == 0.5
    spread = confidence_in_best(SeedStatistics.of([0.4, 0.6]), [stuck])
    assert spread == pytest.approx(student_t_cdf(0.4 / 0.1, 1))


def test_one_seed_or_one_depth_tells_nothing() -> None:
    two, one = SeedStatistics.of([0.4, 0.6]), SeedStatistics.of([0.3])

    assert confidence_in_best(two, [one]) is None
    assert confidence_in_best(one, [two]) is None
    assert confidence_in_best(two, []) is None
