"""`leadline compact`: rewrites the checkpoints of older versions, while no server runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from leadline.models.checkpoint_files import CheckpointError
from leadline.server.command_line import settings_command
from leadline.server.jobs.job import Model
from leadline.server.startup import DataDir, StartupError, open_store
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.store import Store

__all__ = ["CompactedModel", "StartupError", "compact"]


@dataclass(frozen=True, kw_only=True)
class CompactedModel:
    """What became of a model.

    Attributes:
        model: its name.
        epochs: the checkpoints that it has.
        bytes_before: the size of its files before.
        bytes_after: and after.
        damaged: a text for each checkpoint that could not be rewritten.
    """

    model: str
    epochs: int
    bytes_before: int
    bytes_after: int
    damaged: tuple[str, ...]


def compact(arguments: Sequence[str]) -> Iterator[CompactedModel]:
    """Compacts all models of a data directory; yields each one when it is done.

    It can be interrupted at any point, and repeated. Models that nothing can be
    saved of are yielded too.

    Args:
        arguments: options of `leadline serve`, of which the data directory counts.

    Raises:
        click.UsageError: an option is wrong.
        StartupError: a server uses the data directory, or it cannot be used.
        OSError: a file cannot be written or removed.
    """
    command = settings_command("compact", lambda settings: settings, help_text="")
    settings = command.main(list(arguments), prog_name="leadline compact", standalone_mode=False)
    data = DataDir(settings.data_dir)
    if not data.database.exists():
        raise StartupError(f"{data.root} is no data directory: name another with --data-dir")
    with data.locked():
        store, artifacts = open_store(data), Artifacts(data.models)
        for job_id in sorted(store.jobs.ids()):
            if store.jobs.get(job_id).completed_epochs:
                yield _compact(store, store.models.get(job_id), artifacts)


def _compact(store: Store, model: Model, artifacts: Artifacts) -> CompactedModel:
    job_id = model.job.job_id
    before = artifacts.usage(job_id)
    kept = [epoch for epoch in model.epochs if epoch.is_kept]
    damaged = []
    for epoch in kept:
        try:
            artifacts.compact(job_id, epoch, keeps_state=epoch in kept[-2:])
        except CheckpointError as error:
            damaged.append(str(error))
    after = artifacts.usage(job_id).total
    store.jobs.record_bytes(job_id, after)
    return CompactedModel(
        model=f"models/{job_id}",
        epochs=len(kept),
        bytes_before=before.total,
        bytes_after=after,
        damaged=tuple(damaged),
    )
