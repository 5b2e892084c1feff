"""Student's t distribution."""

import math

# Must be even. The error is below 1e-9 for 1 to 10,000 degrees of freedom.
_INTERVALS = 2_000


def student_t_cdf(t: float, degrees_of_freedom: float) -> float:
    """The probability that a t variate is at most `t`.

    With x = sqrt(nu) tan(a) the density becomes c cos(a)^(nu - 1), which is
    smooth. Simpson's rule integrates it.

    Args:
        t: any number, including infinities.
        degrees_of_freedom: at least 1.
    """
    nu = degrees_of_freedom
    scale = math.exp(math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2)) / math.sqrt(math.pi)
    end = math.atan(abs(t) / math.sqrt(nu))
    step = end / _INTERVALS
    total = 1.0 + math.cos(end) ** (nu - 1)
    for index in range(1, _INTERVALS):
        total += (4 if index % 2 else 2) * math.cos(index * step) ** (nu - 1)
    half = min(0.5, scale * total * step / 3)
    return 0.5 + math.copysign(half, t)
