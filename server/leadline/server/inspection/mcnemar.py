"""McNemar's test: whether two classifiers differ significantly on the same images.

McNemar, "Note on the sampling error of the difference between correlated
proportions or percentages", Psychometrika 12, 1947; the continuity correction
is by Edwards, 1948. Both distributions have a closed form, so this needs no
statistics library.
"""

import math
from dataclasses import dataclass

# With fewer discordant images, chi-squared is a poor approximation.
_FEW = 25


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """The result of the test.

    Attributes:
        discordant: images that exactly one classifier predicts correctly.
        statistic: chi-squared with one degree of freedom; None if the p-value is
            exact, from the binomial distribution.
        p_value: two-sided, in [0, 1].
    """

    discordant: int
    statistic: float | None
    p_value: float

    @property
    def is_exact(self) -> bool:
        """Whether the p-value is exact, from the binomial distribution."""
        return self.statistic is None


def mcnemar(fixed: int, broken: int) -> McNemar:
    """Tests whether two classifiers are equally accurate.

    Args:
        fixed: images that only the second predicts correctly.
        broken: images that only the first predicts correctly.
    """
    discordant = fixed + broken
    if discordant < _FEW:
        return McNemar(discordant=discordant, statistic=None, p_value=_binomial(fixed, broken))
    # The continuity correction must not make the difference negative.
    difference = max(abs(fixed - broken) - 1, 0)
    statistic = difference**2 / discordant
    # The upper tail of chi-squared with one degree of freedom.
    p_value = math.erfc(math.sqrt(statistic / 2))
    return McNemar(discordant=discordant, statistic=statistic, p_value=p_value)


def _binomial(fixed: int, broken: int) -> float:
    """The two-sided p-value: the probability that a fair coin gives a split this uneven."""
    discordant = fixed + broken
    tail = sum(math.comb(discordant, count) for count in range(min(fixed, broken) + 1))
    return min(1.0, 2 * tail / float(2**discordant))
