"""The checkpoints that retention removes, and their record in the store."""

from pathlib import Path

import pytest

from leadline.models.spec import TrainingSpec
from leadline.server.jobs.options import JobOptions, Retention, RetentionPolicy
from leadline.server.scheduling.retention import apply_retention
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.store import Store
from support.reports import STARTED, an_epoch


@pytest.mark.parametrize(
    ("policy", "kept"),
    [(RetentionPolicy.ALL, [1, 2, 3, 4]), (RetentionPolicy.BEST_AND_LAST, [2, 3, 4])],
)
def test_checkpoints_that_need_not_be_kept_are_removed(
    store: Store, tmp_path: Path, policy: RetentionPolicy, kept: list[int]
) -> None:
    options = JobOptions(retention=Retention(policy=policy))
    store.jobs.create(TrainingSpec(), options, job_id="a", request_id=None, max_queued=1)
    job = store.attempts.claim("a", device="cpu")
    store.attempts.record_started("a", 1, STARTED)
    folder = tmp_path / "a" / "attempt-001"
    folder.mkdir(parents=True)
    for number, accuracy in enumerate((0.1, 0.4, 0.2, 0.3), start=1):
        (folder / f"epoch-{number:05}.checkpoint").write_text("{}")
        store.attempts.record_epoch("a", 1, an_epoch(number, accuracy))

    apply_retention(store, Artifacts(tmp_path), job)

    epochs = store.models.get("a").epochs
    assert [epoch.result.epoch for epoch in epochs if epoch.is_kept] == kept
    assert sorted(path.name for path in folder.iterdir()) == [
        f"epoch-{number:05}.checkpoint" for number in kept
    ]
