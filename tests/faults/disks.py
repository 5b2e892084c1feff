"""Disks that are full or read-only: jobs wait, no event is lost, and all jobs resume."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from faults.jobs import comparable, damage, reference, specs
from faults.servers import refused_start, wait_until
from faults.setting import Figure, Setting, holds, skipped
from faults.small_disk import SmallDisk, is_possible
from leadline.client import Client, HealthStatus, LeadlineError, RpcError, TrainingJob
from leadline.v1.job_pb2 import JOB_STATE_PAUSED, JOB_STATE_SUCCEEDED, JobEvent
from leadline.v1.training_spec_pb2 import TrainingSpec

_DISK = "size=24m"

# Enough for the database to record events, but too little for a checkpoint.
_A_LITTLE = 60_000

# Enough for a checkpoint, but less than a twentieth of the disk, below which no job starts.
_BELOW_THE_FLOOR = 800_000

# Enough for two checkpoints, but less than half of that, below which no job trains on.
_BELOW_HALF_THE_FLOOR = 400_000

_WAIT_SECONDS = 90


@dataclass
class _Case:
    """A fault of the disk of a server with a job in training."""

    disk: SmallDisk
    client: Client
    image: bytes
    spec: TrainingSpec
    expected: list[JobEvent]
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self, harm: Callable[[], None], mend: Callable[[], None], *, refuses: bool) -> None:
        """Causes the fault during a job, checks what clients see, and repairs the disk."""
        job = self.client.train(self.spec)
        job.detach()
        wait_until(lambda: job.refresh().completed_epochs > 0, "an epoch was complete")
        self.disk.server.log.write_bytes(b"")
        harm()
        told = job.refresh().latest_sequence
        self._look_at(job, refuses=refuses)
        self._check_told(job, told)
        mend()
        self._wait_for_training(HealthStatus.SERVING)
        self._go_on(job)

    def run_below_floor(self) -> None:
        """Submits a job while the disk has less space than the server reserves."""
        self.disk.fill(left=_BELOW_THE_FLOOR)
        job = self.client.train(self.spec)
        job.detach()
        wait_until(lambda: job.refresh().hold.reason == "LOW_DISK_SPACE", "the job was held")
        self._expect(self.client.health() is HealthStatus.SERVING, "health is not SERVING")
        self.disk.empty()
        self._go_on(job)

    def _look_at(self, job: TrainingJob, *, refuses: bool) -> None:
        """Waits for the fault to take effect, and checks that everything else still works."""
        log = self.disk.server.log
        wait_until(
            lambda: (
                job.refresh().state == JOB_STATE_PAUSED
                or job.refresh().HasField("hold")
                or "job store failed" in log.read_text()
            ),
            "the fault had shown",
            seconds=_WAIT_SECONDS,
        )
        now = job.refresh()
        if now.state == JOB_STATE_PAUSED:
            self.notes.append("the job is paused")
            self._expect(now.pause.reason == "STORAGE", f"paused for {now.pause.reason}")
        else:
            self.notes.append("the job waits for the disk")
        if refuses:
            self._expect(self._refusal() == "STORAGE_FULL", f"submitting: {self._refusal()}")
            self._wait_for_training(HealthStatus.NOT_SERVING)
        self._expect(self.client.health() is HealthStatus.SERVING, "health is not SERVING")
        try:
            self.client.predict(self.image, model=f"{job.model}/epochs/1")
        except LeadlineError as error:
            self.wrong.append(f"predicting: {error}")

    def _wait_for_training(self, health: HealthStatus) -> None:
        wait_until(
            lambda: self.client.health("leadline.v1.TrainingService") is health,
            f"the health of training was {health.name}",
            seconds=_WAIT_SECONDS,
        )

    def _refusal(self) -> str:
        try:
            self.client.train(self.spec).cancel()
        except RpcError as error:
            return error.reason
        return "accepted"

    def _check_told(self, job: TrainingJob, told: int) -> None:
        """Checks that events from before the fault are replayed after it."""
        self._expect(job.refresh().latest_sequence >= told, "an acknowledged event is lost")

    def _go_on(self, job: TrainingJob) -> None:
        if job.refresh().state == JOB_STATE_PAUSED:
            job.resume()
        events = list(job.events())
        self._expect(events[-1].finished.state == JOB_STATE_SUCCEEDED, f"ended: {events[-1]}")
        sequences = [event.sequence for event in events]
        self._expect(sequences == list(range(1, len(events) + 1)), "gaps in the sequence")
        self._expect(
            _essence(comparable(events)) == _essence(self.expected), "other events or weights"
        )

    def _expect(self, condition: bool, otherwise: str) -> None:
        if not condition:
            self.wrong.append(otherwise)


def _essence(events: Iterable[JobEvent]) -> list[JobEvent]:
    """Returns the events of a job without its pauses."""
    essence = []
    for event in events:
        if event.WhichOneof("event") not in {"paused", "resumed"}:
            essence.append(JobEvent())
            essence[-1].CopyFrom(event)
            essence[-1].ClearField("sequence")
    return essence


def spoil_disks(setting: Setting) -> list[Figure]:
    """Fills the disk of a server completely and nearly, and makes its checkpoints read-only."""
    bar = "a disk that is nearly full, full, or read-only for checkpoints"
    if not is_possible():
        return [skipped(bar, "this machine does not allow namespaces")]
    image = next(setting.dataset.glob("test/*/*.png")).read_bytes()
    disk = SmallDisk(setting, options=_DISK, folder="small")
    with disk.server as server, Client(server.target) as client:
        setting.say("training on a sound disk, to compare with")
        spec = specs(setting.scale)[0]
        case = _Case(disk, client, image, spec, reference(server.target, spec))
        faults = _faults(disk)[: 1 + setting.scale.faults]
        for number, (name, harm, mend, refuses) in enumerate(faults):
            setting.say(f"{number} of {len(faults)} faults; now: {name}")
            case.run(harm, mend, refuses=refuses)
        setting.say("below the floor")
        case.run_below_floor()
        jobs = [job.name for job in client.jobs() if job.state == JOB_STATE_SUCCEEDED]
        copy = disk.copy_to(server.folder / "copy")
        case.wrong += [what for job in jobs for what in damage(copy, job)]
        if len(jobs) < len(faults) + 1:
            case.wrong.append(f"{len(jobs)} jobs succeeded")
    told = ", ".join(f"{name}: {note}" for (name, *_), note in zip(faults, case.notes, strict=True))
    return [
        holds(
            f"{bar} ({told}): submissions get an error, the server serves, no event "
            "is lost, the job continues to the same weights; on a disk below its floor no job "
            "starts until there is space",
            case.wrong,
        )
    ]


_Fault = tuple[str, Callable[[], None], Callable[[], None], bool]


def _faults(disk: SmallDisk) -> list[_Fault]:
    """Yields each fault: its name, how to cause and repair it, and whether it affects the
    database."""
    return [
        ("nearly full", lambda: disk.fill(left=_A_LITTLE), disk.empty, False),
        (
            "below half of the floor",
            lambda: disk.fill(left=_BELOW_HALF_THE_FLOOR),
            disk.empty,
            False,
        ),
        ("full", disk.fill, disk.empty, True),
        (
            "read-only",
            lambda: disk.make_read_only("models"),
            lambda: disk.make_writable("models"),
            False,
        ),
    ]


def start_on_spoiled_disk(setting: Setting) -> list[Figure]:
    """Starts a server whose data directory is read-only, then one whose disk is full."""
    bar = "a data directory that is read-only, or full, at the start: refused with the reason"
    if not is_possible():
        return [skipped(bar, "this machine does not allow namespaces")]
    wrong = []
    for options, words in (("ro", "cannot be written"), ("size=4k", "full")):
        disk = SmallDisk(setting, options=options, folder=options)
        wrong += refused_start(disk.server, words)
    return [holds(bar, wrong)]
