"""Which jobs fit on a device together."""

from dataclasses import replace

import pytest

from leadline.server.jobs.job import Job
from leadline.server.scheduling.capacity import Capacity, Device

CPU = Device(name="cpu", jobs=1, sweep_jobs=4)


@pytest.fixture
def child(ordinary: Job) -> Job:
    return replace(ordinary, sweep_id="s")


def test_jobs_of_a_sweep_share_a_device_that_an_ordinary_job_fills(
    ordinary: Job, child: Job
) -> None:
    capacity = Capacity([CPU])

    for _ in range(4):
        assert capacity.find(in_sweep=True) == "cpu"
        capacity.acquire("cpu", child)
    assert capacity.find(in_sweep=True) is None
    capacity.release("cpu", child)
    assert capacity.find(in_sweep=True) == "cpu"
    assert capacity.find(in_sweep=False) is None
    for _ in range(3):
        capacity.release("cpu", child)
    capacity.acquire("cpu", ordinary)
    assert capacity.find(in_sweep=True) is None


def test_the_freest_device_is_taken_first(child: Job) -> None:
    capacity = Capacity([replace(CPU, name="cuda:0"), replace(CPU, name="cuda:1")])

    taken = []
    for _ in range(3):
        device = capacity.find(in_sweep=True)
        assert device is not None
        capacity.acquire(device, child)
        taken.append(device)

    assert taken == ["cuda:0", "cuda:1", "cuda:0"]
    assert capacity.nearest() == "cuda:1"
    assert capacity.find(in_sweep=True, except_for="cuda:1") == "cuda:0"


def test_two_ordinary_jobs_share_a_device_that_is_set_to_take_two(ordinary: Job) -> None:
    capacity = Capacity([Device(name="cpu", jobs=2, sweep_jobs=3)])

    for _ in range(2):
        assert capacity.find(in_sweep=False) == "cpu"
        capacity.acquire("cpu", ordinary)

    assert capacity.find(in_sweep=False) is None
    assert capacity.find(in_sweep=True) is None
