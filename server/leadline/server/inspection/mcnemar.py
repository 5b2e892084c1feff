"""Whether two classifiers differ by more than chance on the same images.

McNemar, "Note on the sampling error of the difference between correlated
proportions or percentages", Psychometrika 12, 1947; the continuity correction
is Edwards', 1948. Both distributions have a closed form, so this needs no
library of statistics.
"""

import math
from dataclasses import dataclass

# Below as many discordant images chi-squared is no good approximation.
_FEW = 25


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """The outcome of the test.

    Attributes:
        discordant: images that exactly one classifier gets right.
        statistic: chi-squared with one degree of freedom; None where the
            p-value is the exact one of the binomial distribution.
        p_value: of both tails, in [0, 1].
    """

    discordant: int
    statistic: float | None
    p_value: float

    @property
    def is_exact(self) -> bool:
        """Whether the p-value is that of the binomial distribution."""
        return self.statistic is None


def mcnemar(fixed: int, broken: int) -> McNemar:
    """Tests whether two classifiers are equally accurate.

    Args:
        fixed: images that the second alone gets right.
        broken: images that the first alone gets right.
    """
    discordant = fixed + broken
    if discordant < _FEW:
        return McNemar(discordant=discordant, statistic=None, p_value=_binomial(fixed, broken))
    # The correction takes at most what difference there is.
    difference = max(abs(fixed - broken) - 1, 0)
    statistic = difference**2 / discordant
    # The upper tail of chi-squared with one degree of freedom.
    p_value = math.erfc(math.sqrt(statistic / 2))
    return McNemar(discordant=discordant, statistic=statistic, p_value=p_value)


def _binomial(fixed: int, broken: int) -> float:
    """The probability of a split at least as uneven of as many tosses of a fair coin."""
    discordant = fixed + broken
    tail = sum(math.comb(discordant, count) for count in range(min(fixed, broken) + 1))
    return min(1.0, 2 * tail / float(2**discordant))
