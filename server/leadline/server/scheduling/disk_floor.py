"""The free disk space below which no job starts; at half of it, running jobs stop."""

import shutil
from pathlib import Path
from typing import Literal

from leadline.server.jobs.job import Hold
from leadline.server.memory import in_bytes

FLAG = "--min-free-disk-bytes"

# The default: 1 GiB, or this fraction of a small disk.
_FLOOR = 1 << 30
_SHARE = 0.05


class DiskFloor:
    """Checks whether the disk of the data directory has room for jobs."""

    def __init__(self, folder: Path, setting: int | Literal["auto"]) -> None:
        """Makes a floor; `setting` is the value of the option."""
        self._folder = folder
        self._setting = setting

    def free_bytes(self) -> int:
        """The free space. Blocks.

        Raises:
            OSError: the free space cannot be read.
        """
        return shutil.disk_usage(self._folder).free

    def floor_bytes(self) -> int:
        """The space that must be free. Blocks.

        Raises:
            OSError: the size of the disk cannot be read.
        """
        if self._setting != "auto":
            return self._setting
        return min(_FLOOR, int(_SHARE * shutil.disk_usage(self._folder).total))

    def is_exhausted(self) -> bool:
        """Whether running jobs have to wait too. Blocks.

        At half of the floor: a job that starts has room for many epochs, and does not end
        up in the queue again after the first.
        """
        try:
            return self.free_bytes() < self.floor_bytes() / 2
        except OSError:
            return False  # the next checkpoint, which cannot be written, pauses the job

    def hold(self) -> Hold | None:
        """Why no job may start; None if jobs may. Blocks."""
        try:
            free, floor = self.free_bytes(), self.floor_bytes()
        except OSError as error:
            message = f"the data directory cannot be read: {error.strerror}: repair its disk"
        else:
            if free >= floor:
                return None
            message = (
                f"the disk of the data directory has {in_bytes(free)} free, and no job starts "
                f"below {in_bytes(floor)} ({FLAG}): free some space"
            )
        return Hold(reason="LOW_DISK_SPACE", message=f"{message}; queued jobs then start")
