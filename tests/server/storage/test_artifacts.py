from pathlib import Path

import pytest

from leadline.server.storage.artifacts import Artifacts


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    for job_id in ("known", "deleted", "unknown"):
        folder = tmp_path / job_id / "attempt-001"
        folder.mkdir(parents=True)
        (folder / "epoch-00001.json").write_text("{}")
    return Artifacts(tmp_path)


def test_a_removal_that_a_crash_interrupted_is_finished(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    (tmp_path / "deleted").rename(tmp_path / "deleted.deleted")

    artifacts.finish_removals({"known"})

    assert sorted(path.name for path in tmp_path.iterdir()) == ["known", "unknown"]


def test_checkpoints_of_an_unknown_job_are_left_alone(artifacts: Artifacts, tmp_path: Path) -> None:
    artifacts.finish_removals(set())

    assert sorted(path.name for path in tmp_path.iterdir()) == ["deleted", "known", "unknown"]


def test_removing_what_is_not_there_is_no_error(artifacts: Artifacts) -> None:
    artifacts.remove("nothing")
