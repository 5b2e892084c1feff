"""How many jobs train at once, and on which device.

A device has units. An ordinary job takes all that one job may have of it, and a
job of a sweep a small share: on the CPU a single thread of those that an
ordinary job computes with. So the two kinds can be side by side, and neither
takes more than is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from leadline.server.jobs.job import Job


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device to train on.

    Attributes:
        name: such as "cuda:0" or "cpu".
        jobs: ordinary jobs that fill it.
        sweep_jobs: jobs of sweeps that fill it.
    """

    name: str
    jobs: int
    sweep_jobs: int

    @property
    def units(self) -> int:
        """What it has: so many that each kind of job takes a whole number."""
        return self.jobs * self.sweep_jobs

    def cost(self, *, in_sweep: bool) -> int:
        """The units that a job takes of it."""
        return self.jobs if in_sweep else self.sweep_jobs


class Capacity:
    """What is free of the devices."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self._devices = {device.name: device for device in devices}
        self._free = {device.name: device.units for device in devices}

    def find(self, *, in_sweep: bool, except_for: str | None = None) -> str | None:
        """The freest device with room for such a job, the first of equals; None: there is none."""
        fitting = [
            name
            for name, device in self._devices.items()
            if name != except_for and self._free[name] >= device.cost(in_sweep=in_sweep)
        ]
        return max(fitting, key=self._share, default=None)

    def nearest(self) -> str:
        """The freest device, on which a job that has no room will have it first."""
        return max(self._devices, key=self._share)

    def take(self, device: str, job: Job) -> None:
        """Gives a job its units."""
        self._free[device] -= self._cost(device, job)

    def give_back(self, device: str, job: Job) -> None:
        """Takes a job's units back."""
        self._free[device] += self._cost(device, job)

    def _cost(self, device: str, job: Job) -> int:
        return self._devices[device].cost(in_sweep=job.sweep_id is not None)

    def _share(self, name: str) -> float:
        return self._free[name] / self._devices[name].units
