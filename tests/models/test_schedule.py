import math
import subprocess
import sys

import pytest

from leadline.models.schedule import learning_rate
from leadline.models.spec import Schedule, TrainingSpec


def rates(schedule: Schedule, steps: int) -> list[float]:
    spec = TrainingSpec(schedule=schedule, learning_rate=0.5)
    return [learning_rate(spec, step, steps) for step in range(steps)]


def test_a_constant_rate_is_the_specs_to_the_last_bit() -> None:
    spec = TrainingSpec(learning_rate=0.1)
    assert {learning_rate(spec, step, 7) for step in range(7)} == {0.1}


def test_a_cosine_falls_from_the_rate_to_next_to_nothing() -> None:
    values = rates(Schedule.COSINE, 100)

    assert values[0] == 0.5
    assert values[50] == pytest.approx(0.25)
    assert values[25] == pytest.approx(0.25 * (1 + math.sqrt(0.5)))
    assert values == sorted(values, reverse=True)
    # The step after the last one would be at 0, and so would mirror the first.
    assert values[99] == pytest.approx(0.5 - values[1])
    assert values[99] > 0


def test_one_cycle_rises_in_a_straight_line_and_falls_as_a_cosine() -> None:
    values = rates(Schedule.ONE_CYCLE, 100)

    assert values[0] == pytest.approx(0.5 / 25)
    assert values[15] == pytest.approx((0.5 / 25 + 0.5) / 2)
    assert values[30] == 0.5
    assert values[65] == pytest.approx(0.25)
    assert values[:31] == sorted(values[:31])
    assert values[30:] == sorted(values[30:], reverse=True)
    assert 0 < values[99] < 0.001


@pytest.mark.parametrize("schedule", list(Schedule))
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_training_may_be_as_short_as_one_step(schedule: Schedule, steps: int) -> None:
    assert all(0 < rate <= 0.5 for rate in rates(schedule, steps))


def test_schedules_need_no_torch() -> None:
    program = "import sys, leadline.models.schedule; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
