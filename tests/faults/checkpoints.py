"""Damaged checkpoints: a job resumes from the newest undamaged one, to the same results."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faults.jobs import comparable, damage, open_store, reference, replay, specs
from faults.servers import wait_for_spares, wait_until
from faults.setting import Figure, Setting, all_of, none_of
from leadline.client import Client, TrainingJob
from leadline.server.storage.artifacts import Artifacts

_EPOCHS_BEFORE_DAMAGE = 3


@dataclass(frozen=True)
class _Fault:
    """A kind of damage: the file of a checkpoint, the number of checkpoints, and the change."""

    name: str
    suffix: str
    harm: Callable[[Path], object]
    is_of_all: bool = False


def _truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _flip_a_bit(path: Path) -> None:
    # Half of a checkpoint of so few images are its weights.
    _flip(path, path.stat().st_size // 2)


def _flip_an_early_bit(path: Path) -> None:
    _flip(path, 100)


def _flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


_FAULTS = (
    _Fault("the newest truncated", ".checkpoint", _truncate),
    _Fault("all truncated", ".checkpoint", _truncate, is_of_all=True),
    _Fault("nothing", "", lambda _: None),
    _Fault("a bit of the newest's weights flipped", ".checkpoint", _flip_a_bit),
    _Fault("the newest's optimizer state truncated", ".optimizer.safetensors", _truncate),
    _Fault("the newest's description damaged", ".checkpoint", _flip_an_early_bit),
    _Fault("the newest removed", ".checkpoint", Path.unlink),
    _Fault("all removed", ".checkpoint", Path.unlink, is_of_all=True),
)


def damage_checkpoints(setting: Setting) -> list[Figure]:
    """Kills a server during jobs, damages the checkpoints of each, and starts it again."""
    faults, spec = _FAULTS[: setting.scale.faults], specs(setting.scale)[0]
    flags = (f"--jobs-per-device={len(faults)}", f"--spare-workers={len(faults)}")
    with setting.serving(*flags) as server:
        with Client(server.target, reconnect_timeout=None) as client:
            setting.say("training without damage, to compare with")
            expected = reference(server.target, spec)
            wait_for_spares(server, len(faults))
            jobs = {client.train(spec): fault for fault in faults}
            for job in jobs:
                job.detach()
            wait_until(lambda: all(map(_is_under_way, jobs)), "some epochs were complete")
            server.kill()
            for job, fault in jobs.items():
                _harm(server.data_dir, job.id, fault)
            setting.say(f"damaged the checkpoints of {len(jobs)} jobs")
            server.start()
            other = [
                fault.name
                for job, fault in jobs.items()
                if comparable(job.events()) != expected
                or comparable(replay(server.target, job.name)) != expected
            ]
        damaged = [what for job in jobs for what in damage(server.data_dir, job.name)]
    kinds = ", ".join(fault.name for fault in faults)
    return [
        all_of(
            f"jobs whose checkpoints were damaged ({kinds}): same events and weights",
            other,
            len(jobs),
        ),
        none_of(
            "the same: epochs whose files are missing or damaged afterwards",
            damaged,
            len(jobs) * spec.epochs,
        ),
    ]


def _is_under_way(job: TrainingJob) -> bool:
    return job.refresh().completed_epochs >= _EPOCHS_BEFORE_DAMAGE


def _harm(data_dir: Path, job_id: str, fault: _Fault) -> None:
    artifacts = Artifacts(data_dir / "models")
    with open_store(data_dir) as store:
        epochs = store.models.get(job_id).epochs
        is_final = store.jobs.get(job_id).state.is_final
    if is_final:
        raise RuntimeError(f"job {job_id} was finished before it could be harmed")
    for epoch in epochs if fault.is_of_all else epochs[-1:]:
        folder = artifacts.folder(job_id, epoch.attempt)
        fault.harm(folder / f"epoch-{epoch.result.epoch:05}{fault.suffix}")
