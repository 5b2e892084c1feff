"""The assignment of a worker."""

from dataclasses import replace
from pathlib import Path

import pytest

from leadline.models.datasets import DatasetError
from leadline.server.jobs.job import Job
from leadline.server.scheduling.assignment import AssignmentMaker
from leadline.server.scheduling.capacity import Capacity, Device
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.store import Store
from support.reports import STARTED, an_epoch


def capacity_of(*, sweep_jobs_per_gpu: int) -> Capacity:
    return Capacity(
        [
            Device(name="cpu", jobs=1, sweep_jobs=8),
            Device(name="cuda:0", jobs=1, sweep_jobs=sweep_jobs_per_gpu),
        ]
    )


@pytest.fixture
def maker(tmp_path: Path) -> AssignmentMaker:
    return AssignmentMaker(
        artifacts=Artifacts(tmp_path),
        dataset_sources={"cifar10": "torchvision:cifar10"},
        dataset_cache=tmp_path / "datasets",
        fingerprints={"cifar10": "c" * 64},
        capacity=capacity_of(sweep_jobs_per_gpu=3),
        cpu_threads=8,
        max_image_pixels=1 << 24,
        worker_memory=0,
    )


def test_a_job_of_a_sweep_has_its_share_of_the_threads(
    maker: AssignmentMaker, ordinary: Job
) -> None:
    in_sweep = replace(ordinary, sweep_id="s")

    assert maker.make(ordinary, None, "cpu").threads == 8
    assert maker.make(in_sweep, None, "cpu").threads == 1
    assert maker.make(in_sweep, None, "cuda:0").threads == 2


def test_there_is_a_thread_where_more_jobs_share_a_gpu_than_there_are_cores(
    maker: AssignmentMaker, ordinary: Job
) -> None:
    crowded = replace(maker, capacity=capacity_of(sweep_jobs_per_gpu=64))

    assert crowded.make(replace(ordinary, sweep_id="s"), None, "cuda:0").threads == 1


def test_a_job_resumes_from_kept_checkpoints_with_the_threads_that_it_began_with(
    maker: AssignmentMaker, store: Store, ordinary: Job, tmp_path: Path
) -> None:
    for attempt in (1, 2):
        store.attempts.claim("a", device="cpu")
        store.attempts.record_started("a", attempt, STARTED)
        for epoch in (2 * attempt - 1, 2 * attempt):
            store.attempts.record_epoch("a", attempt, an_epoch(epoch, epoch / 10))
        store.attempts.requeue("a", attempt)
    store.attempts.mark_dropped("a", [1, 3])
    job = store.attempts.claim("a", device="cpu")

    made = maker.make(job, store.models.get("a"), "cpu")

    assert made.resume_from == (
        (4, str(tmp_path / "a" / "attempt-002")),
        (2, str(tmp_path / "a" / "attempt-001")),
    )
    assert made.checkpoint_folder == str(tmp_path / "a" / "attempt-003")
    assert (made.completed_epochs, made.test_accuracies) == (4, (0.1, 0.2, 0.3, 0.4))
    assert (made.dataset_fingerprint, made.threads) == ("f" * 64, 1)
    assert maker.make(ordinary, None, "cpu").dataset_fingerprint == "c" * 64


def test_a_dataset_that_the_server_no_longer_knows_is_an_error(
    maker: AssignmentMaker, ordinary: Job
) -> None:
    with pytest.raises(DatasetError, match="no longer knows the dataset 'cifar10'"):
        replace(maker, dataset_sources={}).make(ordinary, None, "cpu")
