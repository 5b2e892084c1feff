"""Computes the learning rate of a step, from the spec and the step's number alone.

There is no state, so an interrupted training resumes exactly. This module does
not import torch.
"""

import math

from leadline.models.spec import Schedule, TrainingSpec

WARM_UP = 0.3
"""The fraction of all steps in which the one-cycle schedule rises."""

START = 1 / 25
"""The initial learning rate of the one-cycle schedule, as a fraction of its highest."""


def learning_rate(spec: TrainingSpec, step: int, steps: int) -> float:
    """Returns the learning rate of a step.

    With T for `steps`, and s for `step`:

    - constant: `spec.learning_rate`.
    - cosine: `spec.learning_rate` * (1 + cos(pi * s / T)) / 2, which would be 0
      in a step after the last. Source: Loshchilov and Hutter (2017),
      "SGDR: Stochastic Gradient Descent with Warm Restarts", equation 5,
      without restarts.
    - one cycle: rises linearly from `spec.learning_rate` / 25 to
      `spec.learning_rate` in the first W = floor(0.3 * T) steps, and reaches it
      in step W. Then it falls to 0 like the cosine, over T - W steps. The
      momentum is constant. Source: after Smith and Topin (2018),
      "Super-Convergence: Very Fast Training of Neural Networks Using Large
      Learning Rates".

    Args:
        spec: the training spec.
        step: the step's number over all epochs, from 0.
        steps: the number of steps of all epochs; above `step`.
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
