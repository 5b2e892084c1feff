"""Below the floor no job starts, and below half of it none trains on."""

import shutil
from pathlib import Path

import pytest

from leadline.server.scheduling.disk_floor import DiskFloor


@pytest.mark.parametrize(
    ("share_of_free", "is_held", "is_exhausted"),
    [(0.0, False, False), (0.5, False, False), (1.5, True, False), (3.0, True, True)],
)
def test_jobs_stop_at_half_of_the_floor_below_which_none_starts(
    tmp_path: Path, share_of_free: float, is_held: bool, is_exhausted: bool
) -> None:
    floor = DiskFloor(tmp_path, int(share_of_free * shutil.disk_usage(tmp_path).free))

    assert (floor.hold() is not None, floor.is_exhausted()) == (is_held, is_exhausted)


def test_a_data_directory_that_is_gone_holds_jobs_and_leaves_running_ones_to_their_writes(
    tmp_path: Path,
) -> None:
    floor = DiskFloor(tmp_path / "gone", 1)

    hold = floor.hold()

    assert hold is not None
    assert "cannot be read" in hold.message
    assert not floor.is_exhausted()
