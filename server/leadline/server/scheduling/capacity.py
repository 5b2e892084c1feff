"""How many jobs train at once, and on which device.

A device has units. A job of a sweep takes fewer units than an ordinary job: on the
CPU, those of one thread. So jobs of both kinds can run side by side without
overloading the device.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from leadline.server.devices import available_cores, training_devices
from leadline.server.jobs.job import Job
from leadline.server.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device to train on.

    Attributes:
        name: such as "cuda:0" or "cpu".
        jobs: how many ordinary jobs fill it.
        sweep_jobs: how many jobs of sweeps fill it.
    """

    name: str
    jobs: int
    sweep_jobs: int

    @property
    def units(self) -> int:
        """The number of units, chosen so that a job of either kind takes a whole number."""
        return self.jobs * self.sweep_jobs

    def cost(self, *, in_sweep: bool) -> int:
        """The units that a job takes."""
        return self.jobs if in_sweep else self.sweep_jobs


class Capacity:
    """The free units of the devices."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self._devices = {device.name: device for device in devices}
        self._free = {device.name: device.units for device in devices}

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The devices of this machine that the settings name."""
        threads = settings.worker_threads or available_cores()
        return cls(
            [
                Device(
                    name=name,
                    jobs=settings.jobs_per_device * times_named,
                    # On the CPU, each job of a sweep has one thread.
                    sweep_jobs=threads if name == "cpu" else settings.sweep_jobs_per_gpu,
                )
                for name, times_named in Counter(training_devices(settings.devices)).items()
            ]
        )

    @property
    def devices(self) -> Mapping[str, Device]:
        """The devices by name."""
        return self._devices

    def share(self, device: str, *, in_sweep: bool) -> float:
        """The fraction of the machine that a job on a device takes; all that fit add up to 1."""
        chosen = self._devices[device]
        return chosen.cost(in_sweep=in_sweep) / chosen.units / len(self._devices)

    def find(self, *, in_sweep: bool, except_for: str | None = None) -> str | None:
        """The device with the most free units that has room for such a job, or None."""
        fitting = [
            name
            for name, device in self._devices.items()
            if name != except_for and self._free[name] >= device.cost(in_sweep=in_sweep)
        ]
        return max(fitting, key=self._share, default=None)

    def nearest(self) -> str:
        """The device with the most free units, on which a waiting job will fit first."""
        return max(self._devices, key=self._share)

    def acquire(self, device: str, job: Job) -> None:
        """Acquires the units of a job."""
        self._free[device] -= self._cost(device, job)

    def release(self, device: str, job: Job) -> None:
        """Releases the units of a job."""
        self._free[device] += self._cost(device, job)

    def _cost(self, device: str, job: Job) -> int:
        return self._devices[device].cost(in_sweep=job.sweep_id is not None)

    def _share(self, name: str) -> float:
        return self._free[name] / self._devices[name].units
