"""How the step size goes from step to step: a function of the spec and the step alone.

Nothing is kept from one step to the next, so that training that was
interrupted goes on exactly as it would have. This module imports nothing heavy.
"""

import math

from leadline.models.spec import Schedule, TrainingSpec

WARM_UP = 0.3
"""The fraction of all steps that one cycle's way up takes."""

START = 1 / 25
"""The fraction of its highest step size at which one cycle begins."""


def learning_rate(spec: TrainingSpec, step: int, steps: int) -> float:
    """Returns the optimiser's step size for a step.

    With T for `steps`, and s for `step`:

    - constant: `spec.learning_rate`.
    - cosine: `spec.learning_rate` * (1 + cos(pi * s / T)) / 2, which a step
      after the last would have at 0. Source: Loshchilov and Hutter (2017),
      "SGDR: Stochastic Gradient Descent with Warm Restarts", equation 5,
      without restarts.
    - one cycle: over the first W = floor(0.3 * T) steps it goes from
      `spec.learning_rate` / 25 towards `spec.learning_rate` in a straight
      line, and reaches it in step W; from there it goes to 0 as the cosine
      does, over T - W steps. The momentum is left alone. Source: after Smith
      and Topin (2018), "Super-Convergence: Very Fast Training of Neural
      Networks Using Large Learning Rates".

    Args:
        spec: what is trained.
        step: the steps taken before this one, of all epochs: 0 for the first.
        steps: the steps of all of the spec's epochs; above `step`.
    """
    match spec.schedule:
        case Schedule.CONSTANT:
            factor = 1.0
        case Schedule.COSINE:
            factor = _half_cosine(step / steps)
        case Schedule.ONE_CYCLE:
            factor = _one_cycle(step, steps)
    return spec.learning_rate * factor


def _one_cycle(step: int, steps: int) -> float:
    rising = math.floor(WARM_UP * steps)
    if step < rising:
        return START + (1 - START) * step / rising
    return _half_cosine((step - rising) / (steps - rising))


def _half_cosine(done: float) -> float:
    return (1 + math.cos(math.pi * done)) / 2
