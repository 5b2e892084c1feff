from pathlib import Path

import pytest

from leadline.server.storage.artifacts import Artifacts, ModelUsage


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    for job_id in ("known", "deleted", "unknown"):
        folder = tmp_path / job_id / "attempt-001"
        folder.mkdir(parents=True)
        (folder / "epoch-00001.checkpoint").write_text("{}")
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


def test_the_files_of_older_versions_are_told_by_kind(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    folder = artifacts.folder("job", 1)
    folder.mkdir(parents=True)
    sizes = {
        "epoch-00001.safetensors": 1,
        "epoch-00001.predictions.safetensors": 10,
        "epoch-00001.optimizer.safetensors": 100,
        "epoch-00001.onnx": 1_000,
        "epoch-00001.json": 10_000,
        "epoch-00002.checkpoint": 100_000,  # damaged: nobody knows how much of it is weights
    }
    for name, size in sizes.items():
        (folder / name).write_bytes(bytes(size))

    usage = artifacts.usage("job")

    assert usage == ModelUsage(
        checkpoints=2, weights=1, predictions=100_010, optimizer=100, other=11_000
    )
    assert usage.total == sum(sizes.values())
    assert artifacts.usage("nobody").total == 0


def test_the_optimizers_states_of_the_last_two_epochs_are_kept(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    states = [
        artifacts.folder("job", attempt) / f"epoch-{epoch:05}.optimizer.safetensors"
        for attempt, epoch in ((1, 1), (1, 2), (1, 3), (2, 3), (2, 4))
    ]
    for path in states:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    kept = []
    for epoch in (1, 2, 3, 4):
        artifacts.drop_optimizer_states("job", attempt=2, epoch=epoch)
        kept.append(sum(path.exists() for path in states))

    assert kept == [5, 5, 4, 3]
    assert [path for path in states if path.exists()] == states[2:]
