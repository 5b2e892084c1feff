"""Every scenario by its name, in the order in which they run."""

from collections.abc import Callable, Mapping

from faults.cancellations import cancel_beside_streams
from faults.checkpoints import damage_checkpoints
from faults.cuts import cut_at_random
from faults.database import spoil_database
from faults.disconnects import disconnect_abruptly
from faults.disks import spoil_disks, start_on_spoiled_disk
from faults.gateway import pool_callers
from faults.kills import kill_at_random
from faults.memory import watch_memory
from faults.recovery import time_recoveries
from faults.rotations import rotate_certificates
from faults.setting import Figure, Setting
from faults.silences import stop_workers
from faults.submits import time_submits
from faults.watchers import watch_together
from faults.zombies import raise_zombies

Scenario = Callable[[Setting], list[Figure]]

SCENARIOS: Mapping[str, Scenario] = {
    "kills": kill_at_random,
    "recovery": time_recoveries,
    "cuts": cut_at_random,
    "cancellations": cancel_beside_streams,
    "gateway": pool_callers,
    "rotations": rotate_certificates,
    "zombies": raise_zombies,
    "silences": stop_workers,
    "watchers": watch_together,
    "disconnects": disconnect_abruptly,
    "submits": time_submits,
    "memory": watch_memory,
    "disks": spoil_disks,
    "disks-at-start": start_on_spoiled_disk,
    "checkpoints": damage_checkpoints,
    "database": spoil_database,
}
